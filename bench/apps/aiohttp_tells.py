"""aiohttp's run_app, which says who answered, as the built-in servers do: aiohttp_tells.py PORT."""

import os
import sys

from aiohttp import web

TEXT = f"worker={os.environ.get('WORKER_ID', '0')} pid={os.getpid()}"


async def answer(request):
    return web.Response(text=TEXT)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
