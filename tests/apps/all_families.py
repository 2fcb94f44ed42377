"""asyncio.start_server on each PORT of 0.0.0.0 and of [::]: all_families.py PORT..."""

import asyncio
import json
import os
import sys

VERSION = "1"


async def answer(reader, writer):
    while (await reader.readline()).strip():
        pass
    where = "{}/{}".format(*writer.get_extra_info("sockname")[:2])
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "sockname": where}
    body = json.dumps(facts).encode()
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main():
    servers = [await asyncio.start_server(answer, None, int(port)) for port in sys.argv[1:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
