"""Starts, stays, and never listens."""

import signal

while True:
    signal.pause()
