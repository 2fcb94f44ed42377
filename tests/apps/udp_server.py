"""An echo that tells who it is: udp_server.py KIND PORT, KIND socketserver or asyncio."""

import asyncio
import json
import os
import socketserver
import sys

VERSION = "1"


def facts(data):
    said = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}
    return json.dumps({**said, "echo": data.decode()}).encode()


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(facts(data), self.client_address)


class Protocol(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(facts(data), peer)


async def main(address):
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Protocol, local_addr=address)
    await asyncio.Event().wait()


where = ("127.0.0.1", int(sys.argv[2]))
if sys.argv[1] == "asyncio":
    asyncio.run(main(where))
else:
    with socketserver.UDPServer(where, Handler) as server:
        server.serve_forever()
