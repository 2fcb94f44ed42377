"""How accept behaves while nothing waits, told over the channel: accept_semantics.py PORT.

Then it accepts one connection by each kind of socket.
"""

import os
import select
import signal
import socket
import sys

from recluster import worker

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))


class Alarm(Exception):
    pass


def alarm(*_):
    raise Alarm


def outcome():
    try:
        connection, address = listener.accept()
    except Exception as error:
        return type(error).__name__
    with connection:
        connection.sendall(str(os.getpid()).encode())
        return f"{address[0]} {connection.getblocking()}"


said = {}
listener.setblocking(False)
said["non-blocking"] = outcome()
listener.settimeout(0.05)
said["timeout"] = outcome()
signal.signal(signal.SIGALRM, alarm)
listener.settimeout(None)
signal.setitimer(signal.ITIMER_REAL, 0.05)
said["interrupted"] = outcome()
worker.send(said)
worker.ready()

found = {}
poll = select.poll()
poll.register(listener, select.POLLIN)
for name, timeout in (("non-blocking", 0), ("timeout", 20), ("blocking", None)):
    listener.settimeout(timeout)
    if timeout == 0:
        poll.poll()
    found[name] = outcome()
worker.send(found)
signal.pause()
