"""As preload_asgi.py, for who loads a WSGI application in each worker: its line is written when
it has been imported."""

import importlib
import os

for name in os.environ["BENCH_IMPORTS"].split(","):
    importlib.import_module(name)
with open(os.environ["BENCH_VERSION"]) as file:
    VERSION = file.read()
with open(os.environ["BENCH_LOG"], "a") as log:
    log.write(f"{os.getpid()} {VERSION}\n")


def app(environ, start_response):
    body = b"%d" % os.getpid()
    fields = [("Content-Length", str(len(body))), ("Content-Type", "text/plain")]
    start_response("200 OK", fields)
    return [body]
