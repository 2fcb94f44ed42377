"""Sends so many lines on its channel when told to: fuzzes_channel.py PORT SEED COUNT FUZZ FIFO.

FUZZ is the directory of fuzz.py. Then it asks to be replaced. Only the worker of slot 0 of
its first life does that.
"""

import json
import os
import sys
import threading

from http_server import Handler, http

MESSAGES = [
    {"cmd": "ready"},
    {"cmd": "disconnect"},
    {"cmd": "recluster.hello"},
    {"cmd": "recluster.error", "error": "ValueError: no"},
    {"cmd": "recluster.error", "error": "", "nothing": True},
    {"cmd": "NODE_HANDLE", "type": "net.Native"},
    {"echo": {"a": [1, 2.5, None]}, "from": 0},
]


def meant(message):
    return isinstance(message, dict) and message.get("cmd") == "disconnect"


def speak(seed, count):
    import fuzz

    channel = int(os.environ["NODE_CHANNEL_FD"])
    for piece in fuzz.pieces(seed, fuzz.Lines(seed, MESSAGES, meant).take(count)):
        left = piece
        while left:
            left = left[os.write(channel, left) :]
    os.write(channel, json.dumps({"cmd": "disconnect"}).encode() + b"\n")


def wait_for_word(fifo, seed, count):
    with open(fifo, "rb") as word:
        if word.read():
            speak(seed, count)


if __name__ == "__main__":
    port, seed, count, where, fifo = sys.argv[1:]
    sys.path.insert(1, where)
    server = http.server.HTTPServer(("127.0.0.1", int(port)), Handler)
    if os.environ["WORKER_ID"] == "0":
        work = (fifo, int(seed), int(count))
        threading.Thread(target=wait_for_word, args=work, daemon=True).start()
    server.serve_forever()
