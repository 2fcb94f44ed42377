"""asyncio.start_server, HTTP by hand: asyncio_server.py PORT."""

import asyncio
import json
import os
import sys

VERSION = "1"


async def answer(reader, writer):
    while (await reader.readline()).strip():
        pass
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    body = json.dumps(facts).encode()
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
