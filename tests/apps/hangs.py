"""An asyncio server whose loop is blocked for ever: hangs.py PORT.

/hang sleeps, /compute computes.
"""

import asyncio
import json
import os
import sys
import time


def tell():
    if "NODE_CHANNEL_FD" in os.environ:
        os.write(int(os.environ["NODE_CHANNEL_FD"]), b'{"hangs": true}\n')


def blocks_for_ever():
    tell()
    time.sleep(100000)


def computes_for_ever():
    tell()
    while True:
        pass


async def answer(reader, writer):
    line = await reader.readline()
    while (await reader.readline()).strip():
        pass
    if b"/hang" in line:
        blocks_for_ever()
    if b"/compute" in line:
        computes_for_ever()
    body = json.dumps({"worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
