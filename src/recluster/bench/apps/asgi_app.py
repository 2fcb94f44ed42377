"""An ASGI application without a framework."""

import os
import time
from typing import Any

BODY = f"worker={os.environ.get('WORKER_ID')} pid={os.getpid()}\n".encode()
HEADERS = [(b"content-length", str(len(BODY)).encode())]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    query = scope["query_string"]
    if query.startswith(b"ms="):
        time.sleep(int(query[3:]) / 1000)  # the whole loop stands still
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
