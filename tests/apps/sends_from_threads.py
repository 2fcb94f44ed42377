"""Eight threads send the master long messages at once: sends_from_threads.py PORT."""

import http.server
import sys
import threading

from recluster import worker


def sends(number):
    for turn in range(10):
        worker.send([number, turn, chr(97 + number) * 100_000])


server = http.server.HTTPServer(
    ("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler
)
worker.ready()
for number in range(8):
    threading.Thread(target=sends, args=(number,)).start()
server.serve_forever()
