"""A bare ASGI application, for uvicorn, hypercorn and granian."""

import json
import os

VERSION = "1"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    body = json.dumps(facts).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
