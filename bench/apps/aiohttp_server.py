"""aiohttp's own run_app: aiohttp_server.py PORT. Knows nothing of recluster."""

import os
import sys

from aiohttp import web

VERSION = "1"


async def answer(request):
    facts = {"version": VERSION, "worker": os.environ.get("WORKER_ID"), "pid": os.getpid()}
    return web.json_response(facts)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
