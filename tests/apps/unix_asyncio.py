"""asyncio.start_unix_server on argv[1]."""

import asyncio
import json
import os
import sys

VERSION = "1"
FACTS = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps(FACTS).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body)
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_unix_server(answer, sys.argv[1])
    async with server:
        await server.serve_forever()


asyncio.run(main())
