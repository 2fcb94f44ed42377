"""tornado: tornado_server.py PORT."""

import asyncio
import os
import sys

import tornado.web

VERSION = "1"


class Answer(tornado.web.RequestHandler):
    def get(self):
        self.write({"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()})


async def main():
    app = tornado.web.Application([("/", Answer)], log_function=lambda handler: None)
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
