"""asyncio on two port-0 addresses and, if there is IPv6, on one of that."""

import asyncio
import json
import os
import socket

VERSION = "1"


async def answer(reader, writer):
    while (await reader.readline()).strip():
        pass
    name = writer.get_extra_info("sockname")
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "port": name[1]}
    body = json.dumps(facts).encode()
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main():
    hosts = ["127.0.0.1", "127.0.0.1"] + ["::1"] * socket.has_ipv6
    servers = [await asyncio.start_server(answer, host, 0) for host in hosts]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
