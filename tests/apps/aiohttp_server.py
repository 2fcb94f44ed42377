"""aiohttp with its own run_app: aiohttp_server.py PORT."""

import os
import sys

from aiohttp import web

VERSION = "1"


async def answer(request):
    return web.json_response(
        {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    )


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
