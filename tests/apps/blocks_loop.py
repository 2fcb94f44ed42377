"""asyncio whose handler may block the whole loop: blocks_loop.py PORT GO.

GET /block reads the FIFO GO to its end, as `time.sleep` in an async handler would stop all.
"""

import asyncio
import json
import os
import sys


async def answer(reader, writer):
    path = (await reader.readline()).split()[1]
    while (await reader.readline()).strip():
        pass
    if path == b"/block":
        os.write(int(os.environ["NODE_CHANNEL_FD"]), b'"blocks"\n')
        with open(sys.argv[2], "rb") as fifo:
            fifo.read()
    facts = {"worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    body = json.dumps(facts).encode()
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
