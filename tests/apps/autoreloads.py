"""http.server that restarts itself when FILE changes: autoreloads.py PORT FILE."""

import os
import sys
import threading
import time

from http_server import Handler, http


def watch(file):
    before = os.stat(file).st_mtime_ns
    while os.stat(file).st_mtime_ns == before:
        time.sleep(0.02)
    os.execv(sys.executable, [sys.executable, *sys.argv])


threading.Thread(target=watch, args=sys.argv[2:], daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
