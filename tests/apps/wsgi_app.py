"""A bare WSGI application, for gunicorn."""

import json
import os

VERSION = "1"


def app(environ, start_response):
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    body = json.dumps(facts).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
