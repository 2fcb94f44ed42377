"""One shared queue, by hand: shared_queue.py WORKERS FILE [args] | -m MODULE [args].

Listens once, forks, and each child runs the unmodified program with the parent's listening
socket put in place of the one it binds: what gunicorn and `uvicorn --workers` do. A word
"{fd}" is that socket's descriptor, for servers that bind in C. Says {"port": P, "pids":
[...]} and waits. What recluster's tail is compared to.
"""

import ctypes
import json
import os
import runpy
import signal
import socket
import sys

BACKLOG = 1024
PDEATHSIG = 1


def become(words, listener):
    fd = listener.fileno()
    os.set_inheritable(fd, True)
    socket.socket.bind = lambda self, address: os.dup2(fd, self.fileno(), False) and None
    socket.socket.listen = lambda self, backlog=0: None  # it does, and must keep its backlog
    words = [word.format(fd=fd) for word in words]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main():
    count, words = int(sys.argv[1]), sys.argv[2:]
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    pids, parent = [], os.getpid()
    for worker in range(count):
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() == parent:
                os.environ["WORKER_ID"] = str(worker)
                become(words, listener)
            os._exit(0)
        pids.append(pid)
    print(json.dumps({"port": listener.getsockname()[1], "pids": pids}), flush=True)
    listener.close()
    while True:
        signal.pause()


main()
