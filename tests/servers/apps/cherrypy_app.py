"""CherryPy's application on its own server, cheroot. `cherrypy.quickstart` looks first
whether its port is free, and a sibling answers there."""

import sys

import cherrypy
from cheroot.wsgi import Server
from facts import body


class Root:
    @cherrypy.expose
    def index(self):
        return body()


server = Server(("127.0.0.1", int(sys.argv[1])), cherrypy.Application(Root(), ""))
server.safe_start()
