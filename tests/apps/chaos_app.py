"""HTTP/1.1 by asyncio, kept alive, that can be deployed broken: chaos_app.py PORT TOLD.

GET /ID/MS answers after so many milliseconds. What follows MODE is replaced by a deploy.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

VERSION = 1
MODE = "good"

if MODE == "exits":
    sys.exit(3)
if MODE == "raises":
    raise RuntimeError("deployed broken")
if MODE == "hangs":
    signal.pause()

FACTS = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            while (await reader.readline()).strip():
                pass
            _, number, wait = line.split()[1].decode().split("/")
            if int(wait):
                await asyncio.sleep(int(wait) / 1000)
            body = json.dumps({**FACTS, "id": int(number)}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def peers(port):
    """The client ports of what this process has accepted."""
    mine = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            mine.add(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[2].partition(":")[2], 16)
        for row in rows
        if f"socket:[{row[9]}]" in mine and int(row[1].partition(":")[2], 16) == port
    ]


def crash(port, told):
    """Dies of itself, and says first whose connections it takes with it."""
    path = Path(told) / f"{os.getpid()}.new"
    path.write_text(json.dumps(peers(port)))
    path.rename(path.with_suffix(".lost"))
    os._exit(11)


async def main():
    port, told = int(sys.argv[1]), sys.argv[2]
    port = port + 1 if MODE == "wrong_port" else port
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    if MODE == "crashes":
        asyncio.get_running_loop().call_later(0.3, crash, port, told)
    async with server:
        await server.serve_forever()


asyncio.run(main())
