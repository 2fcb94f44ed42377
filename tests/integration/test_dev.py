"""`recluster dev`: a worker that has the terminal, and a reload when a file changes."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import sys
import termios
import threading

import pytest
from clients import get
from harness import GENEROUS, Pidfd, Running, comes_to_rest, edit, survivors, until

pytest.importorskip("watchfiles")

STOPS = """
def stop_here(answer):
    {0}
    return answer


class Stops(Handler):
    def do_GET(self):
        self.path = "/" + stop_here("41")
        Handler.do_GET(self)


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Stops).serve_forever()
"""


def terminal_is_stdin():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Dev(Running):
    """`recluster dev` at a terminal of its own."""

    def __init__(self, *args, cwd, env=None, **more):
        self.ours, theirs = pty.openpty()
        self.told = b""
        env = {"NO_COLOR": "1", "TERM": "dumb", **(env or {})}
        super().__init__(
            *args,
            cwd=cwd,
            env=env,
            verb=("dev",),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=terminal_is_stdin,
            **more,
        )
        os.close(theirs)

    def __exit__(self, *how):
        try:
            super().__exit__(*how)
        finally:
            os.close(self.ours)

    def stderr(self):
        return self.screen()

    def screen(self):
        """What has come to the terminal."""
        with contextlib.suppress(OSError):  # nobody has it open any more
            while select.select([self.ours], [], [], 0)[0]:
                self.told += os.read(self.ours, 65536)
        return self.told.decode(errors="replace").replace("\r\n", "\n")

    def shows(self, words):
        until(lambda: words in self.screen())

    def type(self, text):
        os.write(self.ours, text.encode())


def ask_aside(port):
    """A request whose answer is waited for elsewhere."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(port)))
    thread.start()
    return thread, answers


def stopping(apps, how):
    source = (apps / "http_server.py").read_text().partition('if __name__ == "__main__"')[0]
    (apps / "stops.py").write_text(source + STOPS.format(how))


# ---- the terminal ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["breakpoint()", "import pdb; pdb.set_trace()"])
@pytest.mark.parametrize("target", [("stops.py",), ("--", sys.executable, "stops.py")])
def test_the_debugger_works(how, target, apps):
    stopping(apps, how)
    with Dev(*target, "0", cwd=apps) as running:
        running.wait_for("ready")
        thread, answers = ask_aside(running.port)
        running.shows("(Pdb) ")
        running.type("p int(answer) + 1\n")
        running.shows("\n42\n")
        running.type("c\n")
        thread.join(GENEROUS)
        assert answers[0]["version"] == "1"
        assert running.end() == 0


def test_the_debugger_works_while_the_program_boots(apps):
    """And nobody is in a hurry: there is no limit to getting ready."""
    edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "1"; breakpoint()')
    with Dev("http_server.py", "0", cwd=apps) as running:
        running.shows("(Pdb) ")
        assert running.status()["slots"][0]["workers"][0]["state"] == "starting"
        running.type("c\n")
        running.wait_for("ready")
        assert running.end() == 0


def test_the_worker_is_in_the_foreground_and_control_c_ends_all(apps):
    with Dev("http_server.py", "0", cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        assert os.getpgid(pid) == os.getpgid(running.process.pid) == os.tcgetpgrp(running.ours)
        assert os.readlink(f"/proc/{pid}/fd/0") == os.readlink(f"/proc/{running.process.pid}/fd/0")
        running.type("\x03")
        assert running.wait() == 0
        assert "shutting down" in running.screen()


def test_a_terminal_is_put_back_after_a_worker_that_was_killed_at_a_prompt(apps):
    (apps / "raw.py").write_text(
        "import tty; tty.setraw(0)\n" + (apps / "http_server.py").read_text()
    )
    with Dev("raw.py", "0", cwd=apps) as running:
        before = termios.tcgetattr(running.ours)
        pid = running.wait_for("ready")["pid"]
        raw = termios.tcgetattr(running.ours)
        assert not raw[3] & termios.ECHO
        (apps / "raw.py").write_text((apps / "http_server.py").read_text())
        os.kill(pid, signal.SIGKILL)
        running.wait_for("exit", pid=pid)
        running.wait_for("ready")
        assert termios.tcgetattr(running.ours)[3] == before[3] | termios.ECHO
        assert running.end() == 0


FORKS = """
import subprocess
subprocess.Popen(["sleep", "1000"])
"""


@pytest.mark.parametrize("victim", ["worker", "master"])
def test_no_process_is_left_of_a_worker_that_has_the_terminal(victim, apps):
    """It is in the master's own group, which cannot be killed."""
    (apps / "app.py").write_text(FORKS + (apps / "http_server.py").read_text())
    with Dev("app.py", "0", cwd=apps) as running:
        pid = running.wait_for("ready")["pid"]
        (child,) = (int(one) for one in children(pid))
        left = [Pidfd(child)] if victim == "worker" else [Pidfd(pid)]
        if victim == "worker":
            os.kill(pid, signal.SIGKILL)
            running.wait_for("exit", pid=pid)
        else:
            running.process.kill()
        assert not survivors(left, GENEROUS)
        with contextlib.suppress(ProcessLookupError):
            if victim == "master":
                os.kill(child, signal.SIGKILL)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return file.read().split()


def test_more_workers_have_their_slot_before_each_line_and_no_terminal(apps):
    source = "import os; print('hello from', os.environ['WORKER_ID'])\n"
    (apps / "app.py").write_text(source + (apps / "http_server.py").read_text())
    with Dev("-w", 2, "app.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        running.shows("[0] hello from 0\n")
        running.shows("[1] hello from 1\n")
        for pid in running.pids().values():
            assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
            assert os.getpgid(pid) == pid
        assert running.end() == 0


def test_what_is_said_goes_before_the_defaults_of_dev(apps):
    (apps / "recluster.toml").write_text("workers = 2\n")
    env = {"RECLUSTER_WATCH": "no"}
    with Dev("--prefix=no", "http_server.py", "0", cwd=apps, env=env) as running:
        running.wait_each("ready", 2)
        assert "watching" not in running.screen()
        assert "[0]" not in running.screen()
        assert running.end() == 0


# ---- --watch -----------------------------------------------------------------------------


def test_a_change_reloads_and_broken_code_does_not(apps):
    with Dev("http_server.py", "0", cwd=apps) as running:
        running.wait_for("ready")
        running.shows("watching . (*.py)")
        edit(apps / "http_server.py", 'VERSION = "1"', 'VERSION = "2')
        assert not running.wait_for("reload")["ok"]
        running.shows("SyntaxError: unterminated string literal")
        running.shows("http_server.py has changed")
        assert get(running.port)["version"] == "1"
        edit(apps / "http_server.py", 'VERSION = "2', 'VERSION = "3"')
        assert running.wait_for("reload")["ok"]
        assert get(running.port)["version"] == "3"
        assert running.end() == 0


def test_code_that_is_broken_from_the_beginning_is_waited_for(apps):
    edit(apps / "http_server.py", 'VERSION = "1"', "VERSION = wrong")
    with Dev("--respawn", 0.1, "--backoff", 0.2, "http_server.py", "0", cwd=apps) as running:
        running.shows("watching")
        for _ in range(12):  # --give-up 10 would end it
            running.wait_for("exit")
        edit(apps / "http_server.py", "VERSION = wrong", 'VERSION = "2"')
        running.wait_for("ready")
        assert get(running.port)["version"] == "2"
        assert running.end() == 0


def watching(apps, *options, target=("http_server.py", "0"), **more):
    return Running("--workers", 2, "--timeout", 5, "--watch", *options, *target, cwd=apps, **more)


def ready_and_watching(running):
    running.wait_each("ready", 2)
    until(lambda: any("watching" in line for line in running.log()))


def test_many_changes_are_one_reload(apps):
    with watching(apps) as running:
        ready_and_watching(running)
        for number in range(50):
            (apps / f"new{number}.py").write_text("")
        assert running.wait_for("reload")["ok"]
        (apps / "last.py").write_text("")
        assert running.wait_for("reload")["ok"]
        changed = [line for line in running.log() if "changed" in line]
        assert len(changed) == 2 and "last.py has changed" in changed[1], changed
        assert re.search(r"new\d+\.py, new\d+\.py, new\d+\.py and 47 more have changed", changed[0])
        assert running.end() == 0


def test_what_is_included_and_excluded(apps):
    (apps / "data").mkdir()
    options = ("--watch-include", "*.py,*.html", "--watch-exclude", "data")
    with watching(apps, *options) as running:
        ready_and_watching(running)
        (apps / "data" / "x.py").write_text("")
        (apps / "notes.txt").write_text("")
        (apps / "__pycache__").mkdir(exist_ok=True)
        (apps / "__pycache__" / "x.py").write_text("")
        (apps / "page.html").write_text("")
        running.wait_for("reload")
        changed = [line for line in running.log() if "changed" in line]
        assert changed == ["recluster: page.html has changed"]
        assert running.end() == 0


def test_a_watched_path_may_be_elsewhere_and_must_be_there(apps, tmp_path):
    (tmp_path / "lib").mkdir()
    with watching(apps, f"--watch={tmp_path / 'lib'}") as running:
        ready_and_watching(running)
        (tmp_path / "lib" / "x.py").write_text("")
        running.wait_for("reload")
        assert running.end() == 0
    with Running("--watch=nowhere", "http_server.py", "0", cwd=apps) as running:
        assert running.wait() == 2
        assert running.stderr() == f"recluster: watch: there is no {apps}/nowhere\n"


def watcher_of(running):
    for pid in map(int, children(running.process.pid)):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"watcher.py" in file.read():
                return pid
    return None


def test_the_master_rests_while_nothing_changes(apps):
    with watching(apps) as running:
        ready_and_watching(running)
        comes_to_rest(running.pidfd)
        assert running.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_watcher_ends_with_the_master(number, apps):
    with watching(apps) as running:
        ready_and_watching(running)
        watcher = Pidfd(watcher_of(running))
        running.process.send_signal(number)
        assert not survivors([watcher], GENEROUS)


def test_without_its_watcher_the_master_goes_on(apps):
    with watching(apps) as running:
        ready_and_watching(running)
        os.kill(watcher_of(running), signal.SIGKILL)
        until(lambda: any("the watcher has ended" in line for line in running.log()))
        assert running.reload()["ok"]
        assert running.end() == 0


def test_workers_have_nothing_of_the_watcher(apps):
    for command in (("http_server.py", "0"), ("--", sys.executable, "http_server.py", "0")):
        with watching(apps, target=command) as running:
            ready_and_watching(running)
            ends = {os.readlink(f"/proc/{watcher_of(running)}/fd/{fd}") for fd in (0, 1)}
            for pid in running.pids().values():
                theirs = {
                    os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
                }
                assert not ends & theirs
            assert running.end() == 0


def test_without_watchfiles_the_extra_is_named(apps, monkeypatch):
    from recluster import Cluster
    from recluster.master import watching
    from recluster.options.checks import OptionError

    monkeypatch.setattr(watching.PathFinder, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"^watch: .*recluster\[watch\]"):
        Cluster(apps / "http_server.py", watch=True)


def test_a_reloader_of_the_servers_own_is_told_to_be_off(apps):
    with Running("-w", 1, "http_server.py", "0", "--reload", cwd=apps) as running:
        running.wait_for("ready")
        (line,) = [line for line in running.log() if "--reload" in line and "version" not in line]
        assert "recluster reloads" in line
        assert running.end() == 0
