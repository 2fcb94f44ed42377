"""The control socket: what `python -m recluster.ctl` asks.

Each client sends one JSON line, gets one and is dropped (one that follows the log stays).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ..base.listener import Listener, sent, taken
from ..base.socketfile import Refused, inode_of, listen_at, make_directory, remove_ours
from ..base.text import json_of
from ..host.asked import Asked
from ..host.handle import ReloadHandle
from ..metrics.census import Known
from ..metrics.master import Master
from ..metrics.status import health_line, status_of
from ..options.checks import AUTO, OptionError
from ..output.following import FOLLOWED_MOST, FOLLOWERS_MOST, Wanted, lost_line, unread
from .names import Name, claim
from .orders import ORDERS
from .places import default_directory

REQUEST_MOST = 4096  # bytes, without the newline
CLIENTS_MOST = 16
Told = Callable[[Mapping[str, Any]], None]

BUSY = {"ok": False, "busy": True, "error": f"busy: {CLIENTS_MOST} others are asking"}

# What a client is doing.
ASKING, WAITING, TOLD, FOLLOWING = "asking", "waiting", "told", "following"


def open_control(
    master: Master,
    asked: Asked,
    upgrade: Callable[[Told], None],
    program: str,
    before: Mapping[str, Any] | None = None,
) -> Control | None:
    """As the option `control` says. A path that was asked for and cannot be is
    Refused; the master does not end for want of the default one. `upgrade` has another version
    take over. `program`: what it is called where nobody says. `before`: of the master whose
    place this one takes."""
    if before is not None:
        return Control.resumed(master, asked, upgrade, before)
    wanted, say = master.options.control, master.eventlog.warn
    if wanted is None:
        return None
    path = os.path.abspath(wanted)
    directory = default_directory(os.geteuid(), os.environ)
    try:
        if wanted == AUTO:
            path = os.path.join(directory, f"{os.getpid()}.sock")
            make_directory(directory)
        control = Control(master, asked, upgrade, path)
        control.name = _name(master.options.name, program, directory, path, say)
        return control
    except (Refused, OSError) as error:
        why = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        if wanted != AUTO:
            raise Refused(f"control: {why}") from None
        say(f"no control socket: {why}")
        return None


def _name(
    given: str | None, program: str, directory: str, path: str, say: Callable[[str], None]
) -> Name | None:
    """For want of one nothing fails: PID and path tell the master too."""
    try:
        make_directory(directory)
        name = claim(directory, given or program, path)
    except (Refused, OSError) as error:
        if given:
            say(f"no name: {error}")
        return None
    if given and name.text != given:
        say(f"another master is called {given}: this one is {name.text}")
    return name


def _why(command: object, error: Exception) -> str:
    """What was asked for cannot be; or it went wrong."""
    if isinstance(error, (OptionError, RuntimeError)):
        return str(error)
    return f"{command}: {type(error).__name__}: {error}"


class Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.state = ASKING
        self.request = b""
        self.answer = b""
        self.lost = 0  # lines, of one that follows


class Control:
    """Listens at `path` until closed."""

    def __init__(
        self,
        master: Master,
        asked: Asked,
        upgrade: Callable[[Told], None],
        path: str,
        listener: socket.socket | None = None,
    ) -> None:
        self.path = path
        self.name: Name | None = None
        self._master, self._orders, self._take_over = master, asked, upgrade
        self._upgrades: Client | None = None  # who waits for one
        listener = listener or listen_at(path)
        self._inode = inode_of(path)
        try:
            self.listener = Listener[Client](
                master,
                listener,
                came=lambda connection: self.listener.contained(Client(connection), self._welcome),
                ready=self._ready,
                failed=self._failed,
            )
        except BaseException:
            remove_ours(self.path, self._inode)
            raise

    # ---- for the master that takes this one's place ------------------------------------

    def carried(self) -> dict[str, Any]:
        client = self._upgrades
        waits = client is not None and self.listener.has(client) and client.state == WAITING
        return {
            "path": self.path,
            "listener": self.listener.fileno(),
            "client": client.fd if client is not None and waits else None,
            "name": self.name.carried() if self.name else None,
        }

    @classmethod
    def resumed(
        cls,
        master: Master,
        asked: Asked,
        upgrade: Callable[[Told], None],
        before: Mapping[str, Any],
    ) -> Control:
        """With the listener, the name and the client of the master before. Raises OSError."""
        control = cls(master, asked, upgrade, before["path"], taken(before["listener"]))
        control.name = Name(*before["name"]) if before["name"] else None
        if before["client"] is not None:
            control._upgrades = client = Client(taken(before["client"]))
            client.state = WAITING
            control.listener.wait(client, 0)
        return control

    def upgraded(self, answer: Mapping[str, Any]) -> None:
        """To who has asked for it; only who follows the log is not answered any more."""
        client, self._upgrades = self._upgrades, None
        if client is not None:
            self.listener.contained(client, lambda one: self._answer_if_waiting(one, answer))

    @property
    def is_asked(self) -> bool:
        """By somebody else than who follows the log, or waits for an upgrade."""
        known = (self._upgrades,)
        clients = self.listener.clients()
        return any(one.state != FOLLOWING and one not in known for one in clients)

    def close(self) -> None:
        """The end of the master."""
        if self.listener.closed:
            return
        if self.name:
            self.name.give_back()
        remove_ours(self.path, self._inode)
        self.listener.close()

    def _failed(self, client: Client, error: Exception) -> None:
        what = f"an error inside the master: {type(error).__name__}: {error}"
        self._master.eventlog.warn(f"a control client: {what}")
        told = client.state == TOLD
        with contextlib.suppress(Exception):
            if not told:
                self._fail(client, what)
        if told and not self.listener.closed:
            self._drop(client)

    def _ready(self, client: Client) -> None:
        if client.state == ASKING:
            self._read(client)
        elif client.state == TOLD or (client.state == FOLLOWING and client.answer):
            self._write(client)
        else:  # it has hung up
            self._drop(client)

    def _welcome(self, client: Client) -> None:
        if not self._has_room():
            self._answer(client, BUSY)
        elif not self.listener.closed:
            self.listener.wait(client, select.EPOLLIN)
            self._read(client)

    def _has_room(self) -> bool:
        """Whoever is slowest to ask, or to take its answer, makes room."""
        for client in self.listener.clients():
            if len(self.listener) < CLIENTS_MOST:
                break
            if client.state == ASKING:
                self._read(client)  # it may have come in this moment
            if client.state == ASKING and self.listener.has(client):
                self._answer(client, BUSY)
            if client.state == TOLD:
                self._drop(client)
        return len(self.listener) < CLIENTS_MOST

    def _drop(self, client: Client) -> None:
        self.listener.drop(client)
        if client.state == FOLLOWING and self._master.recent:
            self._master.recent.unfollow(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(REQUEST_MOST + 1 - len(client.request))
        except BlockingIOError:
            return
        except OSError:
            return self._drop(client)
        client.request += data
        line, newline, _ = client.request.partition(b"\n")
        if newline:
            self._asked(client, line)
        elif len(client.request) > REQUEST_MOST:
            self._fail(client, f"a request of more than {REQUEST_MOST} bytes")
        elif not data:
            self._drop(client)

    def _answer(self, client: Client, answer: Mapping[str, Any] | str) -> None:
        client.state = TOLD
        text = answer if isinstance(answer, str) else json.dumps(answer, separators=(",", ":"))
        client.answer = text.encode() + b"\n"
        self._write(client)

    def _fail(self, client: Client, error: str) -> None:
        self._answer(client, {"ok": False, "error": error})

    def _write(self, client: Client) -> None:
        try:
            client.answer = sent(client.connection, client.answer)
        except OSError:
            return self._drop(client)
        if self.listener.has(client) and (client.answer or client.state == FOLLOWING):
            return self.listener.wait(client, select.EPOLLOUT if client.answer else 0)
        return self._drop(client)

    # ---- what is asked ---------------------------------------------------------------

    def _asked(self, client: Client, line: bytes) -> None:
        client.state = WAITING
        self.listener.wait(client, 0)  # hanging up is told nevertheless
        try:
            request = json_of(line)
        except ValueError:
            return self._fail(client, "the request is not JSON")
        command = request.get("cmd") if isinstance(request, dict) else None
        try:
            if command == "status":
                self._of_workers(client, command, self._status)
            elif command == "metrics":
                self._of_workers(client, command, self._metrics)
            elif command == "health":
                self._answer(client, health_line(self._master, request.get("min_ready")))
            elif command == "logs":
                self._logs(client, request)
            elif command == "stop":
                self._stop(client, request)
            elif command == "reload":
                self._reload(client, request.get("wait") is True, request.get("canary"))
            elif command == "upgrade":
                self._upgrade(client)
            elif command in ("promote", "rollback"):
                getattr(self._orders, command)()
                self._answer(client, {"ok": True})
            elif command == "weights":
                self._orders.weights(request.get("weights"))
                weights = self._master.population.weights
                self._answer(client, {"ok": True, "weights": weights})
            elif isinstance(command, str) and command in ORDERS:
                answer = ORDERS[command](self._orders, request)
                if "slot" in answer:
                    self._master.eventlog.line(f"slot {answer['slot']}: {command}, as asked")
                self._answer(client, answer)
            else:
                self._fail(client, f"unknown command {str(command)[:80]!r}")
        except Exception as error:  # a client's question never ends the master
            self._fail(client, _why(command, error))

    def _of_workers(
        self, client: Client, command: str, answer: Callable[[Known], Mapping[str, Any]]
    ) -> None:
        """Answered when all workers have been looked at, which may be a turn later."""

        def looked(known: Known) -> None:
            try:
                reply = answer(known)
            except Exception as error:
                reply = {"ok": False, "error": _why(command, error)}
            self.listener.contained(client, lambda one: self._answer_if_waiting(one, reply))

        self._master.census.ask(looked)

    def _status(self, known: Known) -> Mapping[str, Any]:
        return {"ok": True, "status": status_of(self._master, known)}

    def _metrics(self, known: Known) -> Mapping[str, Any]:
        from ..metrics.measures import text_of  # nobody's who is not asked
        from ..metrics.openmetrics import Text

        return {"ok": True, "metrics": text_of(self._master, known, Text())}

    def _logs(self, client: Client, request: Mapping[str, Any]) -> None:
        recent = self._master.recent
        if recent is None:
            return self._fail(client, unread())
        wanted = Wanted.of(request)
        if wanted.follow and recent.followers >= FOLLOWERS_MOST:
            return self._fail(client, f"{FOLLOWERS_MOST} others follow already")
        lines = "\n".join(['{"ok":true}', *recent.last(wanted.lines, wanted.slot)])
        if not wanted.follow:
            return self._answer(client, lines)
        client.state = FOLLOWING
        client.answer = f"{lines}\n".encode()
        recent.follow(client, wanted.slot, lambda line: self._tell_on(client, line))
        return self._write(client)

    def _tell_on(self, client: Client, line: str) -> None:
        """To who follows: what it does not read in time is counted, and told."""
        if len(client.answer) > FOLLOWED_MOST:
            client.lost += 1
            return
        if client.lost:
            client.answer += lost_line(client.lost)
            client.lost = 0
        waits = bool(client.answer)
        client.answer += line.encode() + b"\n"
        if not waits:
            self.listener.contained(client, self._write)

    def _stop(self, client: Client, request: Mapping[str, Any]) -> None:
        """The answer first. Who waits gets none: at the end the connection is closed."""
        if request.get("wait") is not True:
            self._answer(client, {"ok": True, "pid": os.getpid()})
        if request.get("now") is True:
            self._orders.terminate()
        else:
            self._orders.shutdown()

    def _upgrade(self, client: Client) -> None:
        """Answered when it is over: by the new master, or by this one why it cannot be."""
        self._take_over(self.upgraded)
        self._upgrades = client

    def _reload(self, client: Client, wait: bool, canary: float | None) -> None:
        """Who waits for a canary waits until it serves."""
        if wait:
            handle = self._orders.reload(
                lambda handle: self._reloaded(client, handle), canary=canary
            )
            handle.on_serving = lambda handle: self._answer_if_waiting(
                client, {"ok": True, "generation": handle.generation, "canary": canary}
            )
            return
        handle = self._orders.reload(canary=canary)
        if handle.done and not handle.ok:
            self._reloaded(client, handle)
        else:
            self._answer(client, {"ok": True, "generation": handle.generation})

    def _reloaded(self, client: Client, handle: ReloadHandle) -> None:
        answer = {
            "ok": handle.ok,
            "why": handle.why,
            "generation": handle.generation,
            "seconds": round(handle.seconds, 6),
            "verdicts": handle.verdicts,
        }
        self._answer_if_waiting(client, answer)

    def _answer_if_waiting(self, client: Client, answer: Mapping[str, Any]) -> None:
        if self.listener.has(client) and client.state == WAITING:
            self._answer(client, answer)
