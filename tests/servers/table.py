"""The servers of docs/servers.md: what is typed, the word that some of them need, and what
the test asks. `python tests/servers/table.py` prints the page's table.
"""

import shlex
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Server:
    name: str
    type: str
    """What follows `python -m recluster`. PORT is the port."""
    word: str = ""
    """What one has to know."""
    needs: tuple[str, ...] = ()
    """Modules, commands ("command:go") and npm packages ("npm:koa") without which it cannot be
    tried."""
    edits: tuple[str, str, str] = ("facts.py", 'VERSION = "1"', 'VERSION = "2"')
    """What a deploy changes: file, old text, new text."""
    speaks: str = "http"
    """`http`, `redis`, `memcached` or `quic`."""
    by_worker: bool = True
    """The answers say which worker gave them."""
    before: tuple[str, ...] = ()
    """What is built first: a command."""
    env: dict[str, str] = field(default_factory=dict)
    cut_without_ebpf: bool = False
    """Who is under way at a reload may be lost where the master may not load programs."""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.type)


def _npm(name: str) -> Server:
    edits = ("frameworks.js", 'VERSION = "1"', 'VERSION = "2"')
    return Server(
        name.capitalize(), f"-- node frameworks.js {name} PORT", "",
        ("command:node", f"npm:{name}"), edits,
    )  # fmt: skip


_TXT = ("version.txt", "1", "2")

SERVERS = [
    Server("Django, for development", "django_app.py runserver --noreload 127.0.0.1:PORT",
           "`--noreload`: its own reloader would restart all workers at once when a file changes "
           "(the log says *an autoreloader?*).", ("django",)),
    Server("Django", "-m gunicorn -b 127.0.0.1:PORT --no-control-socket django_app:app",
           "", ("django", "gunicorn")),
    Server("Flask", "flask_app.py PORT",
           "`use_reloader=False`, and not `debug=True`, whose reloader is on.", ("flask",)),
    Server("flask run", "-m flask --app flask_app run --no-reload --port PORT",
           "As above; `flask --debug run` needs `--no-reload`.", ("flask",)),
    Server("Quart", "quart_app.py PORT",
           "`app.run(use_reloader=False)`: its reloader is on by default.", ("quart",)),
    Server("FastAPI", "-m uvicorn --port PORT fastapi_app:app",
           "`fastapi run` works as well; `fastapi dev` and `--reload` restart all workers at once.",
           ("fastapi", "uvicorn")),
    Server("Litestar", "-m uvicorn --port PORT litestar_app:app", "", ("litestar", "uvicorn")),
    Server("Sanic", "-m sanic sanic_app:app --host 127.0.0.1 --port PORT --single-process",
           "`--single-process`: recluster makes the workers.", ("sanic",)),
    Server("gunicorn", "-m gunicorn -b 127.0.0.1:PORT --no-control-socket facts:app",
           "One process is its parent: `-w 1`, and `--workers` of recluster. Its control socket "
           "(since 25) is one path for all: `--no-control-socket`, or `$WORKER_ID` in the name.",
           ("gunicorn",)),
    Server("uWSGI", "-- uwsgi --http-socket 127.0.0.1:PORT --need-app --die-on-term "
           "--master --wsgi-file facts.py --callable app",
           "`--need-app`: else it serves errors without an application. `--die-on-term`: else "
           "SIGTERM reloads it.", ("command:uwsgi",)),
    Server("Granian", "-m granian --interface wsgi --port PORT facts:app",
           "`--workers` of recluster, not its own.", ("granian",)),
    Server("Hypercorn", "-m hypercorn -b 127.0.0.1:PORT fastapi_app:app", "",
           ("hypercorn", "fastapi")),
    Server("Daphne", "-m daphne -b 127.0.0.1 -p PORT fastapi_app:app", "",
           ("daphne", "fastapi")),
    Server("Waitress", "-m waitress --listen=127.0.0.1:PORT facts:app", "", ("waitress",)),
    Server("CherryPy", "cherrypy_app.py PORT",
           "`cherrypy.quickstart` connects to its port first, to see that it is free; a sibling "
           "answers, and every reload fails. Give the application to a WSGI server like `cheroot`. "
           "Its autoreloader is on by default as well: `engine.autoreload.on: False`.",
           ("cherrypy", "cheroot")),
    Server("Twisted", "-- twistd -n --pidfile= web --wsgi facts.app "
           "--listen tcp:PORT:interface=127.0.0.1",
           "`--pidfile=`: it has one pid file for all. `-n`: else it goes to the background.",
           ("command:twistd",), env={"PYTHONPATH": "."}),
    Server("QUIC and HTTP/3 (aioquic)", "http3_app.py PORT",
           "UDP: a flow stays with its worker; through a reload only with CAP_BPF. A client that "
           "changes its address may meet another worker.",
           ("aioquic", "command:openssl"), speaks="quic", cut_without_ebpf=True,
           before=("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                   "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem", "-out",
                   "cert.pem", "-subj", "/CN=localhost", "-days", "2")),
    _npm("express"), _npm("fastify"), _npm("koa"),
    Server("Go", "-- ./server PORT", "A static program: the seccomp door sees it, the preload "
           "library (`--door preload`) cannot. Run what `go build` made, not `go run`.",
           ("command:go",), _TXT, before=("go", "build", "-o", "server", "server.go"),
           env={"GOFLAGS": "-mod=mod", "GO111MODULE": "off"}),
    Server("Java", "-- java -Xshare:auto -XX:+UseSerialGC -cp . Server PORT",
           "Each worker is a JVM: give it its part of the memory (`-Xmx`).", ("command:javac",),
           _TXT, before=("javac", "Server.java")),
    Server("PHP, for development", "-- php -S 127.0.0.1:PORT index.php",
           "FPM has its own pool: let nginx speak with it directly.", ("command:php",),
           ("index.php", 'version = "1"', 'version = "2"')),
    Server("Puma", "-- puma -b tcp://127.0.0.1:PORT -w 0 config.ru",
           "`-w 0`: recluster makes the workers.", ("command:puma",),
           ("config.ru", 'VERSION = "1"', 'VERSION = "2"')),
    Server("nginx", "-- sh -c 'exec nginx -p . -c nginx.conf "
           "-g \"pid nginx-$RECLUSTER_GENERATION-$WORKER_ID.pid;\"'",
           "`daemon off;` in its configuration, a pid file for each worker, and `--stop-signal "
           "QUIT` to have it drain.", ("command:nginx",),
           ("nginx.conf", '"1"', '"2"'), by_worker=False),
    Server("Apache", "--stop-signal WINCH -- sh -c 'exec apache2 -d . -f apache.conf "
           "-D FOREGROUND'",
           "`-D FOREGROUND`; `PidFile` with `${WORKER_ID}` and `${RECLUSTER_GENERATION}` in its "
           "name; `--stop-signal WINCH` is its graceful stop.", ("command:apache2",),
           ("pages/facts.json", '"1"', '"2"'), by_worker=False),
    Server("Redis", "-- redis-server --port PORT --bind 127.0.0.1 --save ''",
           "N workers are **N separate sets of data**, and a reload is an empty one: "
           "a store is not to be run so.", ("command:redis-server",), speaks="redis",
           by_worker=False),
    Server("memcached", "-- memcached -u nobody -l 127.0.0.1 -p PORT", "As Redis.",
           ("command:memcached",), speaks="memcached", by_worker=False),
]  # fmt: skip


def rows() -> str:
    lines = ["| server | `python -m recluster` ... | what to know |", "| --- | --- | --- |"]
    for server in SERVERS:
        typed = server.type.replace("|", "\\|")
        lines.append(f"| {server.name} | `{typed}` | {server.word} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(rows())
