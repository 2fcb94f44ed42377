"""Sends its master what each listener did: listeners_raise.py PORT.

The first listener raises whatever the message names; the second echoes.
"""

import http.server
import sys

from recluster import worker


def raises(message):
    raise {"OSError": OSError, "ValueError": ValueError, "SystemExit": SystemExit}[message]("mine")


def too_much(message):
    try:
        worker.send("x" * (1 << 20))
    except ValueError as error:
        worker.send(["refused", str(error)])
    try:
        worker.send(float("nan"))
    except ValueError:
        worker.send(["refused", "NaN"])


server = http.server.HTTPServer(
    ("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler
)
worker.on_message(raises)
worker.on_message(lambda message: worker.send(["heard", message]))
worker.on_message(too_much)
worker.ready()
server.serve_forever()
