"""Ask a running master: `python -m recluster.ctl PID reload --wait`, `... PID status`.

Owns the words on the terminal and the exit codes: 0 done; 1 it went wrong (a
reload that failed, a master that ended or did not answer in time); 2 it could
not be asked.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import re
import socket
import struct
import sys
import time
from typing import Any, NoReturn

from .socketfile import likely_paths

USAGE = """\
python -m recluster.ctl [options] PID reload [--wait] [--canary PART]
       python -m recluster.ctl [options] PID promote|rollback
       python -m recluster.ctl [options] PID weights SLOT=WEIGHT...
       python -m recluster.ctl [options] PID status [--json]
       python -m recluster.ctl --control PATH [options] reload|status|..."""

EPILOG = """\
Exit code: 0 when it is done (reload without --wait: when it has begun), 1 when
the reload failed or the master ended, 2 when the master could not be asked."""

COMMANDS = ("reload", "status", "promote", "rollback", "weights")
ANSWER_WITHIN = 10.0  # seconds, where --timeout says nothing; a reload that is waited for: ever
BUSY_PAUSE = 0.05
UCRED = struct.Struct("3i")
NUMBER = re.compile(r"\d+|\d+\.\ds|\d+[dhm]\d\d[hms]")


class Failed(Exception):
    """What to say on standard error, and the exit code."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


# ---- finding the master ------------------------------------------------------------


def _connect(path: str, timeout: float) -> socket.socket:
    """Raises OSError. A non-blocking connect would fail at once when the
    master's queue is full, so this one blocks, with a limit."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6) or 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _reach(pid: int | None, path: str | None, timeout: float) -> socket.socket:
    who = path if pid is None else f"master {pid}"
    refused: OSError | None = None
    try:
        paths = [path] if path is not None else likely_paths(pid or 0, os.environ)
    except OSError:
        raise Failed(f"no such master: there is no process {pid}") from None
    for one in paths:
        try:
            connection = _connect(one, timeout)
        except OSError as error:
            if refused is None or error.errno in (errno.EACCES, errno.EPERM, errno.EAGAIN):
                refused = error
            continue
        answers = UCRED.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        )[0]
        if pid is None or answers == pid:
            return connection
        connection.close()
        raise Failed(f"no such master: {one} belongs to process {answers}, not {pid}")
    code = refused.errno if refused else None
    if code in (errno.EACCES, errno.EPERM):
        raise Failed(f"not permitted to ask {who}")
    if code == errno.EAGAIN:
        raise Failed(f"{who} did not answer within {timeout:g} s", 1)
    if path is None:
        raise Failed(f"no such master: process {pid} has no control socket at its usual place")
    if code == errno.ENOENT:
        raise Failed(f"no such master: {path} does not exist")
    if code == errno.ECONNREFUSED:
        raise Failed(f"no such master: nobody listens at {path}")
    raise Failed(f"{path}: {(refused and refused.strerror) or refused}")


def _line(connection: socket.socket, until: float) -> bytes | None:
    """The answer; None at the time, short at the master's end."""
    data = bytearray()
    while not data.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0:
            return None
        connection.settimeout(None if math.isinf(left) else left)
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError:
            return None
        except ConnectionError:
            piece = b""
        if not piece:
            break
        data += piece
    return bytes(data)


def ask(
    request: dict[str, Any], pid: int | None, path: str | None, timeout: float | None
) -> dict[str, Any]:
    """The master's answer, or Failed."""
    waits = request.get("wait", False)
    limit = timeout if timeout is not None else ANSWER_WITHIN
    began = time.monotonic()
    until = math.inf if waits and timeout is None else began + limit
    who = path if pid is None else f"master {pid}"
    while True:
        with _reach(pid, path, limit) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(json.dumps(request).encode() + b"\n")
            line = _line(connection, until)
        if line is None:
            if waits:
                raise Failed(f"the reload is not done after {limit:g} s; it goes on", 1)
            raise Failed(f"{who} did not answer within {limit:g} s", 1)
        if not line.endswith(b"\n"):
            what = "the reload was done" if waits else "it answered"
            raise Failed(f"{who} ended before {what}", 1)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Failed(f"{who} gave an answer that is none", 1)
        if not answer.get("busy"):
            return answer
        if time.monotonic() - began > limit:
            raise Failed(f"{who} is busy", 1)
        time.sleep(BUSY_PAUSE)


# ---- telling -----------------------------------------------------------------------


def _plain(value: object) -> str:
    """One line, whatever a worker's error may hold."""
    words = " ".join(str(value).split())
    return "".join(sign if sign.isprintable() else "?" for sign in words)


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = int(seconds)
    for size, unit, small, letter in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02}{letter}"
    return f"{seconds:.1f}s"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else _plain(value) or "-"


def table(rows: list[tuple[object, ...]]) -> list[str]:
    """Aligned; the first row is the head. Columns of numbers to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        texts = [_shown(value) for value in column]
        width = max(map(len, texts))
        numbers = all(text == "-" or NUMBER.fullmatch(text) for text in texts[1:])
        columns.append([text.rjust(width) if numbers else text.ljust(width) for text in texts])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def status_lines(status: dict[str, Any]) -> list[str]:
    head = f"master {status['pid']}: recluster {status['version']}, generation "
    head += f"{status['generation']}, {status['door']} door, {status['balance']}"
    weights = status["weights"]
    if weights:
        told = (f"{slot}={weights[slot]:g}" for slot in sorted(weights, key=int))
        head += f" ({' '.join(told)})"
    if status["reloading"] is not None:
        head += f", reloading to generation {status['reloading']}"
    if status["canary"]:
        canary = status["canary"]
        head += f", generation {canary['generation']} on probation with {canary['part']:.3g}"
    if status["closing"]:
        head += ", shutting down"
    rows: list[tuple[object, ...]] = [
        ("slot", "generation", "pid", "state", "age", "ready for", "addresses")
    ]
    for slot in status["slots"]:
        for worker in slot["workers"]:
            rows.append(
                (
                    slot["slot"],
                    worker["generation"],
                    worker["pid"],
                    worker["state"],
                    _span(worker["age"]),
                    _span(worker["ready_for"]),
                    " ".join(worker["addresses"]),
                )
            )
        if not slot["workers"]:
            pause = slot["next_try"]
            state = "empty" if pause is None else f"next try in {_span(pause)}"
            rows.append((slot["slot"], None, None, state, None, None, None))
    keys = ("address", "slot", "generation", "pid", "live", "queued", "backlog", "connections")
    lanes: list[tuple[object, ...]] = [("lane", *keys[1:], "pressure")]
    for lane in status["lanes"]:
        shared = {"slot": f"{lane['workers']} share it"} if lane["workers"] > 1 else {}
        lanes.append(tuple({**lane, **shared}[key] for key in (*keys, "pressure")))
    return [_plain(head), "", *table(rows), "", *(table(lanes) if lanes[1:] else ["no lanes"])]


def verdict_lines(answer: dict[str, Any]) -> list[str]:
    """One per slot, then the summary."""
    verdicts = answer["verdicts"]
    lines = [f"worker {slot}: {_plain(verdicts[slot])}" for slot in sorted(verdicts, key=int)]
    if answer["ok"]:
        took = f"{answer['seconds']:.3f} s"
        return [*lines, f"reload: generation {answer['generation']} serves after {took}"]
    return [*lines, f"reload failed: {_plain(answer['why'])}"]


# ---- the command line ----------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"recluster.ctl: {message}\n")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return value


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number between 0 and 1")
    return value


def _parse(words: list[str]) -> tuple[argparse.Namespace, int | None, str]:
    made = _Parser(
        prog="recluster.ctl",
        usage=USAGE,
        epilog=EPILOG,
        description="Ask a running recluster master.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    made.add_argument("--wait", action="store_true", help="until the reload is done")
    made.add_argument(
        "--canary",
        metavar="PART",
        type=_part,
        help="the new generation gets this part of new connections (0 to 1) until promote or "
        "rollback; --wait: until it does",
    )
    made.add_argument("--json", action="store_true", help="the answer as one line of JSON")
    made.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        help=f"seconds to wait for the answer [{ANSWER_WITHIN:g}; with --wait: for ever]",
    )
    made.add_argument("--control", metavar="PATH", help="the control socket of the master")
    given = made.parse_intermixed_args(words)
    rest, pid = list(given.words), None
    if rest and rest[0].isdecimal():
        pid = int(rest.pop(0))
        if not 0 < pid < 1 << 31:
            made.error(f"{pid} is not the PID of a process")
    if not rest:
        made.error(f"say what to do: {', '.join(COMMANDS)} (see --help)")
    if rest[0] not in COMMANDS:
        made.error(f"unknown command {rest[0]!r} (there is {', '.join(COMMANDS)})")
    if rest[0] == "weights":
        if not rest[1:]:
            made.error("weights: give SLOT=WEIGHT")
        given.weights = ",".join(rest[1:])
    elif rest[1:]:
        made.error(f"{rest[1]!r} is one word too many")
    if pid is None and given.control is None:
        made.error("give the PID of the master, or --control PATH")
    if given.wait and rest[0] != "reload":
        made.error("--wait: only a reload can be waited for")
    if given.canary is not None and rest[0] != "reload":
        made.error("--canary: only a reload has one")
    return given, pid, rest[0]


def _tell(command: str, given: argparse.Namespace, answer: dict[str, Any]) -> int:
    """Print the answer; returns the exit code."""
    if "error" in answer:
        unknown = str(answer["error"]).startswith("unknown command")
        raise Failed(f"the master says: {_plain(answer['error'])}", 2 if unknown else 1)
    if command == "status":
        status = answer["status"]
        lines = [json.dumps(status)] if given.json else status_lines(status)
    elif given.json:
        lines = [json.dumps(answer)]
    elif command == "weights":
        weights = answer["weights"]
        told = ", ".join(f"{slot}={weights[slot]:g}" for slot in sorted(weights, key=int))
        lines = [f"weights: {told}; 1 for other slots"]
    elif command != "reload":
        lines = [f"{command}: done"]
    elif "canary" in answer:
        part = f"{answer['canary']:.3g}"
        lines = [f"reload: generation {answer['generation']} gets {part} of new connections"]
    elif "verdicts" in answer:
        lines = verdict_lines(answer)
    else:
        lines = [f"reload: generation {answer['generation']} is on its way"]
    print("\n".join(lines), flush=True)
    return 0 if answer["ok"] else 1


def main(words: list[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    given, pid, command = _parse(sys.argv[1:] if words is None else words)
    request: dict[str, Any] = {"cmd": command}
    if given.wait:
        request["wait"] = True
    if given.canary is not None:
        request["canary"] = given.canary
    if command == "weights":
        request["weights"] = given.weights
    try:
        return _tell(command, given, ask(request, pid, given.control, given.timeout))
    except Failed as failure:
        print(f"recluster.ctl: {failure}", file=sys.stderr)
        return failure.code
    except BrokenPipeError:  # `... status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:  # the reload goes on
        return 130


if __name__ == "__main__":
    sys.exit(main())
