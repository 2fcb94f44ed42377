"""http.server that ignores the first SIGTERM and ends on the second: ignores_first_term.py PORT."""

import signal
import sys

from http_server import Handler, http

terms = []


def on_term(number, frame):
    terms.append(number)
    if len(terms) > 1:
        sys.exit(0)


signal.signal(signal.SIGTERM, on_term)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
