"""A UDP server with a socket for each peer: udp_peers.py PORT KIND.

KIND close: the peer's socket answers once and is closed. KIND keep: it answers what the
peer sends from then on. KIND many: three sockets for all, as with a thread for each.
KIND again: as keep, but the socket for all is closed after the first peer, and bound again.
KIND only: its one socket is connected to a peer, answers and is closed; another says "again".
"""

import json
import os
import select
import socket
import sys

port, kind = int(sys.argv[1]), sys.argv[2]
host = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"


def bound():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


def answer(sock, number, data, peer=None):
    facts = {"worker": os.environ["WORKER_ID"], "socket": number, "echo": data.decode()}
    said = json.dumps(facts).encode()
    sock.sendto(said, peer) if peer else sock.send(said)


mains = [bound() for _ in range(3 if kind == "many" else 1)]
waiting, peers = select.poll(), {}
for main in mains:
    waiting.register(main, select.POLLIN)
while True:
    for fd, _ in waiting.poll():
        if fd in peers:
            answer(peers[fd], fd, peers[fd].recv(99))
            continue
        main = next(main for main in mains if main.fileno() == fd)
        data, peer = main.recvfrom(99)
        if kind == "many":
            answer(main, mains.index(main), data, peer)
            continue
        if kind == "only":
            main.connect(peer)
            answer(main, 0, data)
            main.close()
            waiting.unregister(fd)
            mains = [bound()]
            waiting.register(mains[0], select.POLLIN)
            answer(mains[0], 0, b"again", peer)
            continue
        own = bound()
        own.connect(peer)
        answer(own, own.fileno(), data)
        if kind == "close":
            own.close()
            continue
        if kind == "again" and not peers:
            main.close()
            waiting.unregister(fd)
            mains = [bound()]
            waiting.register(mains[0], select.POLLIN)
            answer(own, own.fileno(), b"again")
        waiting.register(own, select.POLLIN)
        peers[own.fileno()] = own
