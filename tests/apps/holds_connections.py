"""Says which worker it is and keeps the connection: holds_connections.py PORT."""

import asyncio
import contextlib
import os
import sys


async def hold(reader, writer):
    writer.write(os.environ["WORKER_ID"].encode() + b"\n")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def main():
    server = await asyncio.start_server(hold, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
