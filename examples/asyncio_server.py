"""A server on asyncio streams, HTTP by hand: asyncio_server.py [PORT].

Knows nothing of recluster, nor of graceful shutdown: SIGTERM ends it at once.
Edit VERSION, then `kill -USR2` the master.
"""

import asyncio
import json
import os
import sys

VERSION = "1"


async def answer(reader, writer):
    facts = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}
    body = json.dumps(facts).encode() + b"\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            close = b"connection: close" in request.lower()
            last = "\r\nConnection: close\r\n\r\n" if close else "\r\n\r\n"
            writer.write((head + last).encode() + body)
            await writer.drain()
            if close:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    finally:
        writer.close()


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


asyncio.run(main())
