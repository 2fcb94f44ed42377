"""http.server whose handshakes stay half-open until the client speaks: defers_accept.py PORT.

With TCP_DEFER_ACCEPT the kernel ignores the final ACK and waits for data: SYN_RECV for
as long as a test wants it.
"""

import socket
import sys

from http_server import Handler, http

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler, False)
server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
server.server_bind()
server.server_activate()
server.serve_forever()
