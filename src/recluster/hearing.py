"""What has happened to workers, and what they have said, told to the population.

Owns the meaning of the engine's events and of a worker's messages. Decides nothing, and
does not carry out what the population then wants.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from . import _engine
from .options import Options
from .population import Population
from .story import Story
from .view import Worker

Emit = Callable[[str, int, dict[str, Any]], None]


class Hearing:
    """`workers`: those the cluster knows. `emit` tells the cluster's user."""

    def __init__(
        self,
        engine: _engine.Engine,
        population: Population,
        workers: dict[int, Worker],
        options: Options,
        story: Story,
        emit: Emit,
    ) -> None:
        self._engine = engine
        self._population = population
        self._workers = workers
        self._options = options
        self._story = story
        self._emit = emit

    def happened(self, kind: int, key: int, value: int, text: bytes, now: float) -> None:
        """An event of the engine about the worker `key`, which is known."""
        people = self._population
        if kind == _engine.DOOR:
            self._door(key, value, now)
        elif kind == _engine.LISTENING:
            people.listening(key, text.decode(), now)
            how = self._engine.balance_how()
            if how:
                self._story.once("balance", f"new connections: {self._options.balance} by {how}")
        elif kind == _engine.DEAF:
            people.deaf(key, text.decode(), bool(value), now)
        elif kind == _engine.MESSAGE:
            self._message(key, text, now)
        elif kind == _engine.GARBLED:
            self._story.once(
                f"garbled {key}",
                f"{self._workers[key]}: sent a line of more than {value} bytes; dropped",
            )
        elif kind == _engine.HUNG:
            people.hung(key, value, now)
        elif kind == _engine.TAKES:
            people.takes(key, now)
        elif kind == _engine.EXIT:
            people.exited(key, value, now)
        elif kind == _engine.GONE:
            people.gone(key, now)

    def _door(self, key: int, error: int, now: float) -> None:
        if error == 0:
            self._population.online(key, now)
        else:
            self._story.line(f"{self._workers[key]}: its door did not open: {os.strerror(error)}")

    def _message(self, key: int, line: bytes, now: float) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._story.once(
                f"json {key}",
                f"{self._workers[key]}: sent a line that is not JSON; such lines are dropped",
            )
            return
        command = message.get("cmd") if isinstance(message, dict) else None
        if command == "ready":
            self._population.said_ready(key, now)
        elif command == "disconnect":
            self._population.said_disconnect(key, now)
        elif command == "recluster.error":
            self._population.failed(key, str(message.get("error")))
            return
        elif isinstance(command, str) and command.startswith("NODE_"):
            return  # Node's own, about handles
        self._emit("message", key, {"message": message})
