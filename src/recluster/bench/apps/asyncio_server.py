"""A server on asyncio streams, HTTP by hand."""

import asyncio
import os
import time

BODY = f"worker={os.environ.get('WORKER_ID')} pid={os.getpid()}\n".encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n".encode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            _, _, ms = request.split(b" ", 2)[1].partition(b"?ms=")
            if ms:
                time.sleep(int(ms) / 1000)  # the whole loop stands still, as is wanted
            close = b"connection: close" in request.lower()
            writer.write(HEAD + (b"Connection: close\r\n\r\n" if close else b"\r\n") + BODY)
            if close:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        await server.serve_forever()


asyncio.run(main())
