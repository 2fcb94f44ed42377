"""The lifespan of an ASGI application that has none, for preload.py."""

import preload_stamp


def with_lifespan(app):
    async def whole(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                preload_stamp.came_up()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    return whole
