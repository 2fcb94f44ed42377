"""Accepts at once, and is ready when FIFO.SLOT was opened: says_unready.py PORT FIFO [CERT]."""

import os
import ssl
import sys
import threading

from http_server import Handler, http

ready = threading.Event()


def wait():
    open(sys.argv[2] + "." + os.environ["WORKER_ID"]).close()
    ready.set()


class Careful(Handler):
    def do_GET(self):
        if self.path != "/healthz" or ready.is_set():
            super().do_GET()
            return
        body = f"no database for {os.environ['WORKER_ID']}\nand more\n".encode()
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


threading.Thread(target=wait, daemon=True).start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Careful)
if sys.argv[3:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
