"""The clients: one request on one connection, once or from sixteen threads at a time."""

import json
import select
import socket
import threading
import time
from dataclasses import dataclass

GENEROUS = 30.0


class Broken(Exception):
    """The connection was accepted, and ended before a whole answer came."""


class Stale(Exception):
    """A connection kept alive has ended before anything of the next answer came."""


def connect(port, timeout=GENEROUS):
    return socket.create_connection(("127.0.0.1", port), timeout)


def send_request(connection, path="/"):
    request = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode())


def read_answer(connection):
    """The JSON body of a whole answer, or Broken."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionError as error:
        raise Broken(f"{error!r} after {data!r}") from error
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if fields.get("transfer-encoding") == "chunked":
        size, _, body = body.partition(b"\r\n")
        body = body[: int(size, 16)] if body.endswith(b"0\r\n\r\n") else b""
    if " 200 " not in status or len(body) < int(fields.get("content-length", 1)):
        raise Broken(f"cut short: {data!r}")
    return json.loads(body)


def get(port, path="/", timeout=GENEROUS):
    """One request on one connection. Only an accepted one can be Broken."""
    with connect(port, timeout) as connection:
        try:
            send_request(connection, path)
        except ConnectionError as error:
            raise Broken(repr(error)) from error
        return read_answer(connection)


def get_unix(path):
    """One request on one connection to a path, or to a name with a leading zero byte."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GENEROUS)
        # A full queue says EAGAIN to one who does not wait, and makes others wait.
        connection.connect(path)
        try:
            send_request(connection)
        except ConnectionError as error:  # accepted by one that ended
            raise Broken(repr(error)) from error
        return read_answer(connection)


def answers(port, count, ask=get):
    return [ask(port) for _ in range(count)]


def all_answer(port, wanted, ask=get, by=("pid",), least=60, most=3000):
    """Each of these answers, and nobody else does. Who is busy is avoided (balance),
    so it may take more than chance would."""
    seen, wanted, count = set(), {one if type(one) is tuple else (one,) for one in wanted}, 0
    while seen < wanted or count < least:
        facts = ask(port)
        seen.add(tuple(facts[name] for name in by))
        count += 1
        assert seen <= wanted and count <= most, f"{seen} after {count}, not {wanted}"


def ask_grpc(port):
    """One call on a connection of its own."""
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        return json.loads(channel.unary_unary("/Facts/Get")(b"", timeout=GENEROUS))


# ---- connections that wait ------------------------------------------------------------


def queue(port, count):
    """Connections with a request each, in lanes that nobody accepts from."""
    connections = []
    for _ in range(count):
        # A full backlog would drop the SYN, and its retransmission takes a second.
        connections.append(connect(port, 0.9))
        connections[-1].settimeout(30)
        send_request(connections[-1])
    return connections


def read_all(connections):
    found = []
    for connection in connections:
        with connection:
            found.append(read_answer(connection))
    return found


def answered(connections, seconds):
    """Those that have bytes to read within this time, and the others."""
    deadline, waiting = time.monotonic() + seconds, list(connections)
    while waiting and (left := deadline - time.monotonic()) > 0:
        ready = select.select(waiting, [], [], left)[0]
        waiting = [connection for connection in waiting if connection not in ready]
    return [connection for connection in connections if connection not in waiting], waiting


def is_quiet(connection, seconds):
    """Nothing comes, not even an end of file."""
    return not select.select([connection], [], [], seconds)[0]


class KeepAlive:
    """A connection for many requests of HTTP/1.1."""

    def __init__(self, port):
        self._connection = connect(port)
        self._stream = self._connection.makefile("rb")
        self.asked = 0

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._stream.close()
        self._connection.close()

    def ask(self, path="/"):
        """The JSON body of the answer. Stale: an end before any byte of it came."""
        try:
            self._connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            status = self._stream.readline()
        except ConnectionError as error:
            raise Stale(repr(error)) from error
        if not status:
            raise Stale("end of file")
        fields = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            fields[name.lower()] = value.strip()
        body = self._stream.read(int(fields["content-length"]))
        if b" 200 " not in status or len(body) < int(fields["content-length"]):
            raise Broken(f"cut short: {status!r} {body!r}")
        self.asked += 1
        return json.loads(body)

    def ended(self, timeout=GENEROUS):
        """Wait for the end of file; a reset is Broken."""
        self._connection.settimeout(timeout)
        try:
            return self._stream.read(1) == b""
        except ConnectionError as error:
            raise Broken(repr(error)) from error


# ---- load ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    began: float
    """When the connection was begun (time.monotonic)."""
    ended: float
    facts: dict | None
    error: Exception | None


class Load:
    """Client threads that ask, one connection per request, until stopped."""

    def __init__(self, port, ask=get, clients=16, limit=100_000, seconds=90.0):
        self._port, self._ask, self._limit = port, ask, limit
        self._until = time.monotonic() + seconds
        self._stopping = False
        self._changed = threading.Condition()
        self.answers = []
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused):
        self.stop()

    def _client(self):
        while not self._stopping:
            began = time.monotonic()
            facts = error = None
            try:
                facts = self._ask(self._port)
            except Exception as failure:
                error = failure
            with self._changed:
                self.answers.append(Answer(began, time.monotonic(), facts, error))
                # Refused: nobody listens, and asking on would meet a stranger.
                refused = isinstance(error, ConnectionRefusedError)
                if refused or len(self.answers) >= self._limit or began > self._until:
                    self._stopping = True
                self._changed.notify_all()

    def more(self, count, timeout=GENEROUS):
        """Wait until so many more connections have been begun and answered."""
        self.until(lambda fresh: len(fresh) >= count, timeout)

    def until(self, enough, timeout=GENEROUS):
        """Wait until `enough` says so of the answers to connections begun from now on."""
        now, known = time.monotonic(), len(self.answers)

        def come():
            fresh = [answer for answer in self.answers[known:] if answer.began > now]
            return self._stopping or enough(fresh)

        with self._changed:
            assert self._changed.wait_for(come, timeout), "the load makes no progress"
        assert not self._stopping, f"the load was over before; {self.failures()}"

    def since(self, moment):
        """The answers to connections begun after this moment."""
        return [answer for answer in self.answers if answer.began > moment]

    def failures(self):
        return [answer for answer in self.answers if answer.error]

    def stop(self):
        self._stopping = True
        for thread in self._threads:
            thread.join(GENEROUS * 2)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
