"""A bare ASGI application with an endless answer at /sse, until its client goes."""

import asyncio

import asgi_app


async def app(scope, receive, send):
    if scope["type"] != "http" or scope["path"] != "/sse":
        return await asgi_app.app(scope, receive, send)
    await receive()
    gone = asyncio.ensure_future(receive())
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
        await asyncio.sleep(0.05)
