"""asyncio.start_server on port 0 of 127.0.0.1 twice and of ::1, told by message."""

import asyncio
import json
import os

from recluster import worker


async def answer(reader, writer):
    port = writer.get_extra_info("sockname")[1]
    while (await reader.readline()).strip():
        pass
    body = json.dumps({"worker": os.environ["WORKER_ID"], "port": port}).encode()
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main():
    servers = [
        await asyncio.start_server(answer, host, 0) for host in ("127.0.0.1", "127.0.0.1", "::1")
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    worker.send({"ports": ports})
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
