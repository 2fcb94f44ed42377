"""An ASGI application without a framework. Knows nothing of recluster.

    python -m recluster -m uvicorn uvicorn_app:app --port 8000

Edit VERSION, then `kill -USR2` the master.
"""

import json
import os

VERSION = "1"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    facts = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}
    body = json.dumps(facts).encode() + b"\n"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive, send):
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
