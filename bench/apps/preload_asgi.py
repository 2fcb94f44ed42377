"""An ASGI application that imports what BENCH_IMPORTS names."""

import importlib
import json
import os

import preload_lifespan
import preload_stamp

for name in os.environ["BENCH_IMPORTS"].split(","):
    importlib.import_module(name)


async def hello(scope, receive, send):
    body = json.dumps(preload_stamp.answer()).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = preload_lifespan.with_lifespan(hello)
