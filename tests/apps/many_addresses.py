"""Listens on PORT of 127.0.1.1, 127.0.1.2 ..., then accepts: many_addresses.py PORT COUNT"""

import asyncio
import socket
import sys


async def answer(reader, writer):
    writer.close()


async def main():
    hosts = [f"127.0.1.{1 + number}" for number in range(int(sys.argv[2]))]
    sockets = [socket.create_server((host, int(sys.argv[1]))) for host in hosts]
    servers = [await asyncio.start_server(answer, sock=sock) for sock in sockets]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
