"""asgi_app under uvicorn, telling what the server itself drops: a message for each
connection that it has accepted and, stopping, closes before a request came.

GET /slow is answered when there is no file "hold".
"""

import asyncio
import os
from asyncio import base_events

from asgi_app import app as facts
from uvicorn.protocols.http.h11_impl import H11Protocol

from recluster import worker

shutdown, attach = H11Protocol.shutdown, base_events.Server._attach


def counting_shutdown(self):
    if self.cycle is None:
        worker.send("dropped")
    shutdown(self)


def counting_attach(self, *transport):
    if self._sockets is None:  # asyncio accepted it in the turn in which it closed
        worker.send("dropped")
    attach(self, *transport)


H11Protocol.shutdown, base_events.Server._attach = counting_shutdown, counting_attach


async def app(scope, receive, send):
    while scope.get("path") == "/slow" and os.path.exists("hold"):
        await asyncio.sleep(0.01)
    await facts(scope, receive, send)
