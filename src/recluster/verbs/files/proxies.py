"""What stands in front: nginx, HAProxy.

A server closes idle connections when it stops, and a proxy that writes at that instant sees a
reset. So both reuse connections for less long than servers keep them, and try again where
nothing was answered.
"""

from __future__ import annotations

import json

from .subject import GUESS, Subject

REUSED_FOR = 4  # seconds: uvicorn and others keep an idle connection for 5
CONNECTIONS = 32


def _listens(host: str) -> str:
    """Where a client of the same machine reaches it."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _server(subject: Subject, unix: str) -> str:
    kind, host, port = subject.address or GUESS
    return f"{unix}{host}" if kind == "unix" else f"{_listens(host)}:{port}"


def _guessed(subject: Subject) -> list[str]:
    return (
        [] if subject.address else ["# The port is a guess: nothing in the command line says it."]
    )


def nginx(subject: Subject) -> str:
    name = subject.name
    return "\n".join(
        [
            f"# /etc/nginx/conf.d/{name}.conf, by: {subject.typed}",
            *_guessed(subject),
            f"upstream {name} {{",
            "    # One address, which is never down: while nobody serves, clients wait in it.",
            f"    server {_server(subject, 'unix:')} max_fails=0;",
            f"    keepalive {CONNECTIONS};",
            "    # Shorter than the server keeps an idle connection.",
            f"    keepalive_timeout {REUSED_FOR}s;",
            "}",
            "",
            "server {",
            "    listen 80;",
            "    location / {",
            f"        proxy_pass http://{name};",
            "        proxy_http_version 1.1;",
            '        proxy_set_header Connection "";',
            "        proxy_set_header Host $host;",
            "        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            "        proxy_set_header X-Forwarded-Proto $scheme;",
            "        # On a connection that was just closed; not what changes something (POST).",
            "        proxy_next_upstream error timeout;",
            "        proxy_next_upstream_tries 2;",
            "    }",
            "}",
        ]
    )


def haproxy(subject: Subject) -> str:
    name, url = subject.name, subject.options.ready_url
    check = []
    if url and not url.tls:
        asks = f"meth GET uri {json.dumps(url.path)} ver HTTP/1.1 hdr Host {url.host}"
        check = ["    option httpchk", f"    http-check send {asks}"]
    return "\n".join(
        [
            f"# For /etc/haproxy/haproxy.cfg, by: {subject.typed}",
            *_guessed(subject),
            "defaults",
            "    mode http",
            "    timeout connect 5s",
            "    timeout client 60s",
            "    timeout server 60s",
            "    timeout http-keep-alive 60s",
            "",
            f"frontend {name}-in",
            "    bind :80",
            f"    default_backend {name}",
            "",
            f"backend {name}",
            "    option forwardfor",
            "    http-reuse safe",
            "    # On a connection that was just closed, where nothing was answered.",
            "    retries 3",
            "    retry-on conn-failure empty-response",
            "    http-request disable-l7-retry if METH_POST",
            *check,
            f"    server {name} {_server(subject, 'unix@')} check inter 2s fall 3 "
            f"pool-purge-delay {REUSED_FOR}s pool-max-conn {CONNECTIONS}",
        ]
    )
