"""Asks for ever smaller backlogs on a socket that listens: listens_again.py PORT.

So does its child, of which the worker's socket is as much as its own.
"""

import os
import sys

from http_server import Handler, http

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.socket.listen(100)
child = os.fork()
if child == 0:
    server.socket.listen(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
server.socket.listen(1)
os.write(int(os.environ["NODE_CHANNEL_FD"]), b'"listens again"\n')
server.serve_forever()
