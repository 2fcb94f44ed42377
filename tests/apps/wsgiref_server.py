"""wsgiref.simple_server: wsgiref_server.py PORT."""

import json
import os
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

VERSION = "1"


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def app(environ, start_response):
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    body = json.dumps(facts).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), app, handler_class=Quiet).serve_forever()
