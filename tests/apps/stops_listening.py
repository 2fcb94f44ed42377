"""Gives its listener up and lives on: stops_listening.py PORT [PORT ...].

GET /close closes the listener that the request came by, /shutdown shuts it down
first, /disconnect asks to be replaced first. Then it answers what it has, and
leaves on SIGTERM. /wait closes it too and is answered only then; /again closes it and
listens anew.
"""

import asyncio
import json
import os
import signal
import socket
import sys

from recluster import worker

VERSION = "1"
servers = {}


async def listen(port):
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    servers[server.sockets[0].getsockname()[1]] = server


async def close(server):
    """asyncio drops what it has accepted in the turn in which a server is closed."""
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    await asyncio.sleep(0.02)
    server.close()


async def answer(reader, writer):
    line = await reader.readline()
    if not line:
        writer.close()
        return
    path = line.split()[1].decode()
    while (await reader.readline()).strip():
        pass
    port = writer.get_extra_info("sockname")[1]
    if path == "/disconnect":
        worker.disconnect()
    elif path == "/shutdown":
        servers[port].sockets[0].shutdown(socket.SHUT_RDWR)
    if path != "/":
        await close(servers[port])
    if path == "/again":
        await listen(port)
    elif path == "/wait":
        await leaving.wait()
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    body = json.dumps(facts).encode()
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main():
    global leaving
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    for port in sys.argv[1:]:
        await listen(int(port))
    await leaving.wait()
    await asyncio.sleep(0.1)  # for the last answers


asyncio.run(main())
