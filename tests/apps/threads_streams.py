"""Threads with endless answers at /sse, kept on SIGTERM: threads_streams.py PORT.

Told to stop it accepts no more and ends with its last stream.
"""

import signal
import sys
import threading

from http_server import Handler, http


class Streams(Handler):
    def do_GET(self):
        if self.path != "/sse":
            return super().do_GET()
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"data: tick\n\n")
                threading.Event().wait(0.05)
        except ConnectionError:
            pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False


def stop(*unused):
    threading.Thread(target=server.shutdown).start()


server = Server(("127.0.0.1", int(sys.argv[1])), Streams)
signal.signal(signal.SIGTERM, stop)
server.serve_forever(0.05)
server.server_close()
