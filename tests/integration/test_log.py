"""The log: its formats, its file, its levels; and the event stream's places."""

import json
import os
import pty
import re
import select
import signal
import socket
import sys

import pytest
from embedcase import program  # noqa: F401 - a fixture
from harness import GENEROUS, Running, links, until

FAST = ("--workers", 2, "--respawn", 0.1, "--drain-settle", 0.1)
FILE = ("http_server.py", "0")
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+05:30 (DEBUG|INFO|WARNING|ERROR) recluster: .+"
)


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def read_all(fd):
    data = b""
    while select.select([fd], [], [], 0)[0]:
        try:
            more = os.read(fd, 1 << 16)
        except OSError:  # a terminal whose other side is closed
            break
        if not more:
            break
        data += more
    return data


# ---- formats -----------------------------------------------------------------------------


def test_text_has_a_time_and_a_level_and_begins_with_who_it_is(apps):
    with Running(*FAST, "--name", "shop", *FILE, cwd=apps, env={"TZ": "IST-5:30"}) as running:
        running.wait_each("ready", 2)
        pid = running.process.pid
        assert running.reload()["ok"]
        assert running.end() == 0
        lines = running.raw_stderr().splitlines()
        assert all(LINE.fullmatch(line) for line in lines), lines
        told = running.log()
        first = (
            rf"recluster: version \S+, pid {pid}, name shop, control /.+/{pid}\.sock: {FILE[0]} 0"
        )
        assert re.fullmatch(first, told[0]), told
        assert "recluster: reloading: generation 2 serves when its 2 workers are ready" in told
        assert "recluster: shutting down: workers have 30 s" in told
        assert told[-1] == "recluster: ended with exit code 0"


def test_json_has_the_fields_of_the_event_in_each_line(apps):
    options = (*FAST, "--log-format", "json", "--log-level", "debug")
    with Running(*options, *FILE, cwd=apps) as running:
        ready = running.wait_each("ready", 2)
        os.kill(ready[1]["pid"], signal.SIGKILL)
        running.wait_for("ready", slot=1)
        assert running.reload()["ok"]
        assert running.end() == 0
        told = [json.loads(line) for line in running.raw_stderr().splitlines()]
        for line in told:
            assert {"time", "level", "message", "slot", "generation", "pid"} <= line.keys(), line
        assert told[0]["event"] == "begin" and told[0]["pid"] == running.process.pid
        assert told[-1]["event"] == "end" and told[-1]["code"] == 0
        for event in running.seen:
            if event["event"] not in ("online", "ready", "exit", "reload"):
                continue
            fields = {key: value for key, value in event.items() if key not in ("seen", "time")}
            assert any(_tells(line, fields) for line in told), fields
        killed = [line for line in told if line.get("signal") == "SIGKILL"]
        assert [line["level"] for line in killed] == ["warning"]


def _tells(line, fields):
    return all(line.get(key) == value for key, value in fields.items())


def test_a_stream_of_the_journal_has_priorities(apps):
    for same in (True, False):
        reader, writer = socket.socketpair()
        found = os.fstat(writer.fileno())
        inode = found.st_ino if same else found.st_ino + 1
        env = {"JOURNAL_STREAM": f"{found.st_dev}:{inode}"}
        with Running(*FAST, *FILE, cwd=apps, env=env, stderr=writer.fileno()) as running:
            pids = running.wait_each("ready", 2)
            os.kill(pids[0]["pid"], signal.SIGKILL)
            running.wait_for("ready", slot=0)
            assert running.end() == 0
        lines = read_all(reader.fileno()).decode().splitlines()
        begins = {line[:3] for line in lines if "recluster: " in line}
        assert begins == ({"<6>", "<4>"} if same else {"202"})
        reader.close()
        writer.close()


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_has_colours(env, coloured, apps):
    reader, writer = pty.openpty()
    env = {"TERM": "xterm", **env}
    with Running(*FAST, *FILE, cwd=apps, env=env, stderr=writer) as running:
        running.wait_each("ready", 2)
        assert running.end() == 0
    text = read_all(reader).decode()
    assert ("\x1b[32mINFO\x1b[0m recluster: " in text) is coloured
    assert "INFO" in text
    os.close(reader)
    os.close(writer)


def test_a_level_leaves_out_what_is_less(apps):
    with Running(*FAST, "--log-level", "error", *FILE, cwd=apps) as running:
        running.wait_each("ready", 2)
        (apps / FILE[0]).write_text("syntax error")
        assert not running.reload()["ok"]
        assert running.end() == 0
        (line,) = running.log()
        assert line.startswith("recluster: reload failed, nothing has changed: ")
        assert " ERROR recluster: reload failed" in running.raw_stderr()


def test_a_master_that_cannot_begin_says_so_in_the_same_format(apps):
    options = ("--log-format", "json", "--control", "/nonexistent/x")
    with Running(*options, *FILE, cwd=apps) as running:
        assert running.wait() == 1
        told = json.loads(running.raw_stderr())
        assert told["level"] == "error" and "/nonexistent" in told["message"]
        assert (told["slot"], told["pid"]) == (None, running.process.pid)


def test_a_logger_gets_levels_and_fields(program):  # noqa: F811
    found, _ = program("""
        import logging
        kept = []
        class Keep(logging.Handler):
            def emit(self, record):
                kept.append([record.levelname, record.getMessage(), record.recluster])
        logger = logging.getLogger("cluster")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(Keep())
        cluster = cluster_of(logger=logger)
        cluster.start()
        drive_until(cluster, lambda: names().count("ready") == 2)
        cluster.terminate()
        drive_until(cluster, lambda: cluster.exit_code is not None)
        print(json.dumps(kept))
        """)
    levels = {(level, fields.get("event")) for level, _, fields in found}
    assert {("DEBUG", "online"), ("INFO", "ready"), ("INFO", "begin")} <= levels
    assert all({"slot", "generation", "pid"} <= fields.keys() for _, _, fields in found)


# ---- a file ------------------------------------------------------------------------------

ON_USR1 = """import signal
signal.signal(signal.SIGUSR1, lambda *_: open(f"usr1.{os.getpid()}", "w").close())
import os
"""


def test_usr1_opens_the_file_anew_and_reaches_the_workers(apps):
    (apps / "app.py").write_text(ON_USR1 + (apps / FILE[0]).read_text())
    log, old = apps / "log", apps / "log.1"
    options = ("--log-file", "log", "--events", "events")
    with Running(*FAST, *options, "app.py", "0", cwd=apps) as running:
        until(lambda: sum("ready after" in line for line in lines_of(log)) == 2)
        assert running.raw_stderr() == ""
        first = log.read_text()
        pids = [
            one["pid"] for one in map(json.loads, lines_of(apps / "events")) if one["slot"] == 0
        ]
        log.rename(old)
        (apps / "events").rename(apps / "events.1")
        running.signal(signal.SIGUSR1)
        until((apps / f"usr1.{pids[0]}").exists)
        until(log.exists)
        until((apps / "events").exists)
        running.signal(signal.SIGUSR2)
        until(lambda: any("generation 2 serves after" in line for line in lines_of(log)))
        assert old.read_text() == first
        events = apps / "events"  # written behind the log
        until(lambda: any(json.loads(line)["event"] == "reload" for line in lines_of(events)))
        running.process.send_signal(signal.SIGTERM)
        assert running.pidfd.is_dead(GENEROUS)
        assert lines_of(log)[-1].endswith("ended with exit code 0")


def test_a_file_that_is_truncated_begins_again(apps):
    """logrotate's copytruncate."""
    log = apps / "log"
    with Running(*FAST, "--log-file", log, *FILE, cwd=apps) as running:
        running.wait_each("ready", 2)
        until(lambda: len(lines_of(log)) > 2)
        os.truncate(log, 0)
        assert running.reload()["ok"]
        until(lambda: "generation 2 serves after" in log.read_text())
        assert "\0" not in log.read_text()
        assert " recluster: reloading" in lines_of(log)[0]
        assert running.end() == 0


def test_a_file_that_cannot_be_opened_anew_is_kept(apps):
    (apps / "logs").mkdir()
    with Running(*FAST, "--log-file", "logs/log", *FILE, cwd=apps) as running:
        running.wait_each("ready", 2)
        (apps / "logs").rename(apps / "elsewhere")
        running.signal(signal.SIGUSR1)
        moved = apps / "elsewhere" / "log"
        until(lambda: "cannot be opened anew: No such file" in moved.read_text())
        assert running.end() == 0
        assert lines_of(moved)[-1].endswith("ended with exit code 0")


def test_a_file_that_cannot_be_opened_ends_the_start(apps):
    with Running("--log-file", "none/log", *FILE, cwd=apps) as running:
        assert running.wait() == 1
        path = apps / "none" / "log"
        assert running.log() == [f"recluster: log_file: {path}: No such file or directory"]


def test_workers_do_not_have_the_file(apps):
    log = apps / "log"
    for command in (FILE, ("--", sys.executable, *FILE)):
        with Running(*FAST, "--log-file", log, *command, cwd=apps) as running:
            running.wait_each("ready", 2)
            for pid in running.pids().values():
                assert str(log) not in links(pid)
            assert running.end() == 0


# ---- --events ------------------------------------------------------------------------------


def test_events_to_standard_output(apps):
    with (apps / "out").open("wb") as out:
        with Running(*FAST, "--events", "-", *FILE, cwd=apps, stdout=out) as running:
            until(lambda: sum('"ready"' in line for line in lines_of(apps / "out")) == 2)
            running.process.send_signal(signal.SIGTERM)
            assert running.pidfd.is_dead(GENEROUS)
        told = [json.loads(line) for line in lines_of(apps / "out")]
        assert told[-1]["event"] == "end"
        assert all({"time", "slot", "generation", "pid"} <= one.keys() for one in told)
