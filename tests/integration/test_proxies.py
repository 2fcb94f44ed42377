"""nginx and HAProxy in front, as `recluster init` configures them, and reloads under load."""

import contextlib
import http.client
import shutil
import subprocess
import threading

import pytest
from harness import GENEROUS, Pidfd, Running, edit, free_port, until
from nginxconf import temporary
from test_init import init

CLIENTS = 4
RELOADS = 4
LEAST = 400  # requests


def written(folder, kind, text, port):
    """Its whole configuration, as somebody who is not root runs it."""
    if kind == "haproxy":
        assert "bind :80" in text
        return text.replace("bind :80", f"bind 127.0.0.1:{port}")
    assert "listen 80;" in text
    site = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
    return (
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/log;\n"
        f"events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; {temporary(folder)}\n{site}\n}}\n"
    )


class Proxy:
    def __init__(self, kind, folder, text, port):
        self.folder, self.log = folder, folder / "log"
        (folder / "conf").write_text(written(folder, kind, text, port))
        conf = str(folder / "conf")
        self.test = {"nginx": ["nginx", "-t", "-e", str(self.log), "-c", conf]}.get(
            kind, ["haproxy", "-c", "-f", conf]
        )
        self.run = {"nginx": ["nginx", "-e", str(self.log), "-c", conf]}.get(
            kind, ["haproxy", "-db", "-f", conf]
        )
        self.port = port

    def __enter__(self):
        checked = subprocess.run(self.test, capture_output=True, text=True, timeout=GENEROUS)
        assert checked.returncode == 0, checked.stderr
        with open(self.folder / "out", "wb") as out:
            self.process = subprocess.Popen(self.run, stdout=out, stderr=out)
        self.pidfd = Pidfd(self.process.pid)
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        if not self.pidfd.is_dead(GENEROUS):
            self.process.kill()
        self.process.wait()
        self.pidfd.close()


def needs(kind):
    if not shutil.which(kind):
        pytest.skip(f"{kind} is not installed")


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
@pytest.mark.parametrize("app", ["asyncio_server.py", "aiohttp_server.py"])
def test_nothing_is_lost_through_it(apps, tmp_path, kind, app):
    needs(kind)
    if app == "aiohttp_server.py":
        pytest.importorskip("aiohttp")
    port, front = free_port(), free_port()
    text = init(kind, "-w", 2, app, port, cwd=apps)
    answers, failures, over = [], [], threading.Event()

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", front, timeout=GENEROUS)
        while not over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answers.append((answer.status, answer.read()))
            except OSError as error:
                failures.append(repr(error))
                connection.close()
        connection.close()

    options = ("--workers", 2, "--timeout", 30)
    with Running(*options, app, port, cwd=apps) as running, Proxy(kind, tmp_path, text, front):
        running.wait_each("ready", 2)
        until(lambda: _answers(front))
        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(RELOADS):
                until(lambda turn=turn: len(answers) > LEAST * turn // RELOADS)
                edit(apps / app, f'VERSION = "{turn + 1}"', f'VERSION = "{turn + 2}"')
                assert running.reload()["ok"]
            until(lambda: len(answers) > LEAST and b'"5"' in answers[-1][1])
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not failures, failures[:5]
        assert {status for status, _ in answers} == {200}
        assert running.end() == 0


def _answers(port):
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GENEROUS)
        connection.request("GET", "/")
        fine = connection.getresponse().status == 200
        connection.close()
        return fine
    return False
