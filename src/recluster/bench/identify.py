"""Which worker has accepted a connection, asked of the kernel: for any server.

sock_diag gives the inode of the server's end of a connection (0 while nobody has accepted
it), /proc/PID/fd whose descriptor it is. A worker is a process with all below it, so
servers that accept in children (gunicorn, granian) are seen; children that a worker has
orphaned are not. Where sock_diag is refused, /proc/net/tcp tells the same, more slowly.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
TCP_LISTEN = 10
HEADER = struct.Struct("=IHHII")  # nlmsghdr
REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to the socket's id
ALL_STATES = 0xFFFFFFFF
ANSWER_INODE = HEADER.size + 4 + 48 + 16  # nlmsghdr, four bytes, inet_diag_sockid, four words

Name = tuple[str, int]


def packed(host: str) -> bytes:
    """The address as sock_diag has it, 16 bytes."""
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)
    return socket.inet_aton(host) + bytes(12)


def question(server: Name, client: Name, family: int) -> bytes:
    """A look-up of exactly one connection, from the server's end."""
    sockid = struct.pack("!HH", server[1], client[1]) + packed(server[0]) + packed(client[0])
    sockid += struct.pack("=I", 0) + b"\xff" * 8  # any device, no cookie
    body = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, ALL_STATES) + sockid
    head = (HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    return HEADER.pack(*head) + body


def inode_of(answer: bytes) -> int:
    """0: not accepted, or there is no such connection. The kernel then looks further, as for
    a packet that comes in, and answers with the listener (inet_diag_find_one_icsk)."""
    if HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
        return 0
    if answer[HEADER.size + 1] == TCP_LISTEN:
        return 0
    return int(struct.unpack_from("=I", answer, ANSWER_INODE)[0])


def proc_name(text: str) -> Name:
    """An address as /proc/net/tcp and tcp6 have it: words of 4 bytes, in the host's order."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    raw = b"".join(
        struct.pack("=I", int.from_bytes(words[at : at + 4], "big"))
        for at in range(0, len(words), 4)
    )
    if len(raw) == 16 and raw.startswith(bytes(10) + b"\xff\xff"):
        raw = raw[12:]
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, raw), int(port, 16)


class Identifier:
    """`workers`: pid of each slot's worker -> what to call it."""

    def __init__(self, server: Name, workers: dict[int, str]) -> None:
        self.server, self.workers = server, workers
        self.owners: dict[int, str] = {}  # inode -> worker, as last seen
        self.netlink: socket.socket | None = None
        with contextlib.suppress(OSError):
            self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        # A server on [::] has IPv4 connections as ::ffff:127.0.0.1 of family AF_INET6; the
        # kernel finds them by their IPv4 addresses too (inet_diag_find_one_icsk).
        self.family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET

    def find(self, clients: list[Name]) -> dict[Name, str]:
        """Of those client ends, the ones some worker has accepted."""
        inodes = self._ask(clients) if self.netlink else self._read(clients)
        if any(inode not in self.owners for inode in inodes.values()):
            self.owners = self._scan()
        return {
            client: self.owners[inode] for client, inode in inodes.items() if inode in self.owners
        }

    def _ask(self, clients: list[Name]) -> dict[Name, int]:
        assert self.netlink is not None
        found = {}
        try:
            for client in clients:
                self.netlink.send(question(self.server, client, self.family))
                inode = inode_of(self.netlink.recv(8192))
                if inode:
                    found[client] = inode
        except OSError:  # a sandbox that refuses the question, not the socket
            self.netlink = None
            return self._read(clients)
        return found

    def _read(self, clients: list[Name]) -> dict[Name, int]:
        found, wanted = {}, set(clients)
        for path in ("/proc/net/tcp", "/proc/net/tcp6"):
            with contextlib.suppress(FileNotFoundError), open(path) as lines:
                next(lines)
                for line in lines:
                    words = line.split()
                    if int(words[1].rpartition(":")[2], 16) != self.server[1]:
                        continue
                    client, inode = proc_name(words[2]), int(words[9])
                    if inode and client in wanted:
                        found[client] = inode
        return found

    def _scan(self) -> dict[int, str]:
        owners: dict[int, str] = {}
        for pid, name in self.workers.items():
            for one in [pid, *descendants(pid)]:
                for inode in socket_inodes(one):
                    owners[inode] = name
        return owners


def descendants(pid: int) -> list[int]:
    """The processes below this one."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    found += [child, *descendants(child)]
    return found


def socket_inodes(pid: int) -> list[int]:
    """Of the sockets this process has open."""
    found = []
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                name = os.readlink(f"/proc/{pid}/fd/{fd}")
                if name.startswith("socket:["):
                    found.append(int(name[8:-1]))
    return found
