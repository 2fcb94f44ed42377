"""What every application here answers: its code's version, and who answered."""

import json
import os

VERSION = "1"


def facts():
    return {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}


def body():
    return json.dumps(facts()).encode()


def app(environ, start_response):  # WSGI, for the servers that bring no framework
    start_response("200 OK", [("Content-Length", str(len(body())))])
    return [body()]
