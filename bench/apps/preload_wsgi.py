"""As preload_asgi.py, for who loads a WSGI application in each worker: it has come up when it
has been imported."""

import importlib
import json
import os

import preload_stamp

for name in os.environ["BENCH_IMPORTS"].split(","):
    importlib.import_module(name)
preload_stamp.came_up()


def app(environ, start_response):
    body = json.dumps(preload_stamp.answer()).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]
