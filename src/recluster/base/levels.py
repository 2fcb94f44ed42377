"""How much a line of the log matters: module logging's numbers, without that module."""

from __future__ import annotations

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
