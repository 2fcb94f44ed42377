"""What goes over the wire of loopback to and from one port: whether a server ends what it owes.

Needs CAP_NET_RAW. The kernel shows each packet of loopback twice, as it leaves and as it comes;
one is enough.
"""

import ctypes
import socket
import struct
import threading

ETH_P_IP, OUTGOING, ATTACH_FILTER, RCVBUFFORCE = 0x0800, 4, 26, 33
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


def filter_of(port):
    """Packets with that port at either end: a classic program over a packet without its link's
    header (SOCK_DGRAM), of IPv4 without options, as loopback has them."""
    program = [
        (0x30, 0, 0, 9),  # protocol
        (0x15, 0, 5, socket.IPPROTO_TCP),
        (0x28, 0, 0, 20),  # source port
        (0x15, 2, 0, port),
        (0x28, 0, 0, 22),
        (0x15, 0, 1, port),
        (0x06, 0, 0, 128),  # headers are enough
        (0x06, 0, 0, 0),
    ]
    return b"".join(struct.pack("HBBI", *one) for one in program)


class Capture:
    """While it is entered. `wrong`: ends that came before an answer; `requests`: of clients."""

    def __init__(self, port):
        self._port, self._stop = port, threading.Event()
        text = filter_of(port)
        self._text = ctypes.create_string_buffer(text)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 64 << 20)
        packed = struct.pack("HxxxxxxQ", len(text) // 8, ctypes.addressof(self._text))
        self._socket.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, packed)
        self._socket.bind(("lo", ETH_P_IP))
        self._socket.settimeout(0.2)
        # Clients' ports. Others may have ours at their own end, and be no clients.
        self._clients, self._owed, self._ended = set(), set(), set()
        self.wrong, self.requests, self.ends = [], 0, 0
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def lost(self):
        """Packets that there was no room for (packet(7), PACKET_STATISTICS)."""
        return struct.unpack("II", self._socket.getsockopt(263, 6, 8))[1]

    def _read(self):
        while not self._stop.is_set():
            try:
                packet, address = self._socket.recvfrom(256)
            except TimeoutError:
                continue
            if address[2] != OUTGOING:
                self._packet(packet)

    def _packet(self, packet):
        length = struct.unpack_from("!H", packet, 2)[0]
        source, target = struct.unpack_from("!HH", packet, 20)
        offset, flags = packet[32] >> 4, packet[33]
        loaded = length > 20 + 4 * offset
        if target == self._port:
            if flags & (SYN | ACK) == SYN:
                self._clients.add(source)
            if source in self._clients:
                self._from_client(source, loaded, flags)
        elif target in self._clients:
            self._from_server(target, loaded, flags)

    def _from_client(self, client, loaded, flags):
        if loaded:
            self.requests += 1
            self._owed.add(client)
            if client in self._ended:
                self.wrong.append(f"{client} asks after the server has ended")
        elif flags & SYN:  # SYN: the port of one before
            self._owed.discard(client), self._ended.discard(client)

    def _from_server(self, client, loaded, flags):
        if loaded:
            self._owed.discard(client)
        if flags & (FIN | RST):
            self.ends += 1
            self._ended.add(client)
            if client in self._owed:
                self.wrong.append(f"{client} is ended ({flags:#x}) before its answer")
