"""A WSGI application, for gunicorn. Knows nothing of recluster."""

import json
import os

VERSION = "1"


def app(environ, start_response):
    body = json.dumps({"version": VERSION, "pid": os.getpid()}).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
