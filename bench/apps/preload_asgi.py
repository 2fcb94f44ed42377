"""An ASGI application that imports what BENCH_IMPORTS names. Each worker that has come up
writes a line to BENCH_LOG: its pid, and the version that it was imported with."""

import importlib
import os

for name in os.environ["BENCH_IMPORTS"].split(","):
    importlib.import_module(name)
with open(os.environ["BENCH_VERSION"]) as file:
    VERSION = file.read()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                with open(os.environ["BENCH_LOG"], "a") as log:
                    log.write(f"{os.getpid()} {VERSION}\n")
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b"%d" % os.getpid()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
