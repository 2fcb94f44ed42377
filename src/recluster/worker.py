"""The worker's side: who am I, and the channel to the master.

Importing it outside a cluster is harmless: `id` is None and messages go nowhere.
Only the process that recluster started has the channel; its own children do not.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

from .base.text import line_of


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None


def _open_channel() -> socket.socket | None:
    fd = _number("NODE_CHANNEL_FD")
    if fd is None:
        return None
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        return socket.socket(fileno=fd)
    except OSError:  # inherited environment, without the descriptor
        return None


id: int | None = _number("WORKER_ID")
"""The slot of this worker, from 0; None outside a cluster."""

generation: int | None = _number("RECLUSTER_GENERATION")
"""The generation this worker belongs to; None outside a cluster."""

_channel = _open_channel()


def begin() -> None:
    """In a worker whose mold had imported this module."""
    global id, generation, _channel
    id, generation = _number("WORKER_ID"), _number("RECLUSTER_GENERATION")
    _channel = _open_channel()


_writing = threading.Lock()
_listeners: list[Callable[[Any], object]] = []
_reader: threading.Thread | None = None


def send(message: Any) -> bool:
    """Send something JSON can say to the master (its `message` event).

    Blocks while the master does not read. False if there is no channel (any
    more). Raises TypeError or ValueError for what JSON cannot say (NaN, for one),
    and for more than a line may have (1 MiB). Thread-safe.
    """
    line = line_of(message) + b"\n"
    if _channel is None:
        return False
    try:
        with _writing:
            _channel.sendall(line)
    except OSError:
        return False
    return True


def ready() -> bool:
    """With ready_when="ready": from now on this worker can serve."""
    return send({"cmd": "ready"})


def disconnect() -> bool:
    """Ask to be replaced; the master stops this worker once a successor serves."""
    return send({"cmd": "disconnect"})


def on_message(listener: Callable[[Any], object]) -> None:
    """Call `listener` with each message of the master, in a thread of its own.
    What it raises goes to threading.excepthook, and the next message is heard.

    The master itself sends {"cmd": "disconnect"} to a worker that it retires.
    """
    global _reader
    _listeners.append(listener)
    if _reader is None and _channel is not None:
        send({"cmd": "recluster.hello"})  # from now on a disconnect finds somebody who hears it
        _reader = threading.Thread(target=_read, name="recluster-channel", daemon=True)
        _reader.start()


def _read() -> None:
    assert _channel is not None
    with contextlib.suppress(OSError), _channel.makefile("rb") as lines:
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                continue
            for listener in list(_listeners):
                _guarded(listener, message)


def _guarded(listener: Callable[[Any], object], message: Any) -> None:
    """As a thread that raises ends, but the channel is read on."""
    try:
        listener(message)
    except BaseException:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), _reader)))
