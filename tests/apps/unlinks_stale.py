"""Removes what is left at each of many AF_UNIX paths, and listens there, as servers
do at their start; tells a port which of them it could not find afterwards."""

import contextlib
import json
import os
import signal
import socket
import stat
import sys

folder, count = sys.argv[1].removeprefix("unix:"), int(sys.argv[2])
kept, lost = [], []
for number in range(count):
    path = os.path.join(folder, f"{number}.sock")
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    listener = socket.socket(socket.AF_UNIX)
    kept.append(listener)
    listener.bind(path)
    listener.listen()
    try:
        os.chmod(path, 0o666)
    except FileNotFoundError:
        lost.append(number)
with socket.create_connection(("127.0.0.1", int(sys.argv[3]))) as told:
    told.sendall(json.dumps(lost).encode())
signal.pause()
