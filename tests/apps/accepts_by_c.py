"""Accepts by accept4(2) of C, and tells what it got: accepts_by_c.py PORT FLAGS."""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
while True:
    name, length = ctypes.create_string_buffer(64), ctypes.c_uint(64)
    fd = libc.accept4(listener.fileno(), name, ctypes.byref(length), int(sys.argv[2]))
    if fd < 0:
        continue
    connection = socket.socket(fileno=fd)
    facts = {
        "pid": os.getpid(),
        "peer": struct.unpack_from("!H", name, 2)[0],
        "length": length.value,
        "host": socket.inet_ntoa(name[4:8]),
        "nonblock": bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK),
        "cloexec": bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC),
        "nodelay": bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
    }
    connection.setblocking(True)
    connection.recv(65536)
    body = json.dumps(facts).encode()
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    connection.close()
