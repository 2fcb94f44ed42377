"""aiohttp with endless answers: aiohttp_streams.py PORT. /sse is a stream, /ws a WebSocket.

Told to stop, it waits for its handlers, a minute at most.
"""

import asyncio
import sys

from aiohttp import web
from aiohttp_server import answer


async def sse(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b"data: tick\n\n")
        await asyncio.sleep(0.05)


async def websocket(request):
    response = web.WebSocketResponse()
    await response.prepare(request)

    async def read():
        async for _ in response:
            pass

    reader = asyncio.ensure_future(read())
    while not reader.done():
        await response.send_str("tick")
        await asyncio.sleep(0.05)
    return response


app = web.Application()
app.router.add_get("/", answer)
app.router.add_get("/sse", sse)
app.router.add_get("/ws", websocket)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
