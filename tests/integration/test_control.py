"""`python -m recluster.ctl`: what is asked, told and refused."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

import pytest
from ctlcase import FAST, NOBODY, as_root, ask, asking, ends, one_line_of_usage, status_of
from harness import ENVIRONMENT, GENEROUS, Running, edit, stop, until

from recluster.verbs import tables

# ---- status --------------------------------------------------------------------------


def test_status_for_machines(running, path):
    status = status_of(running, path)
    pids = running.pids()
    address = f"127.0.0.1:{running.port}"
    assert status["pid"] == running.process.pid
    assert (status["generation"], status["reloading"], status["closing"]) == (1, None, False)
    assert status["door"] in ("notify", "preload")
    assert [slot["slot"] for slot in status["slots"]] == [0, 1]
    for slot in status["slots"]:
        [worker] = slot["workers"]
        assert (worker["pid"], worker["generation"]) == (pids[slot["slot"]], 1)
        assert (worker["state"], worker["addresses"]) == ("serving", [address])
        assert 0 <= worker["ready_for"] <= worker["age"] < GENEROUS
    assert {lane["slot"]: lane["pid"] for lane in status["lanes"]} == pids
    for lane in status["lanes"]:
        assert (lane["address"], lane["generation"], lane["live"]) == (address, 1, True)
        assert lane["queued"] == 0 and lane["backlog"] > 0


def test_status_counts_what_waits(running, path):
    for pid in running.pids().values():
        stop(pid)
    with contextlib.ExitStack() as held:
        for _ in range(8):
            held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
        status = status_of(running, path)
        assert sum(lane["queued"] for lane in status["lanes"]) == 8
    for pid in running.pids().values():
        os.kill(pid, signal.SIGCONT)


def test_status_as_a_table(running, path):
    code, out, err = ask("--control", path, "status")
    assert (code, err) == (0, [])
    assert out[0].startswith(f"master {running.process.pid} (http_server): recluster ")
    workers, lanes = "\n".join(out).split("\n\n")[1:]
    for text, head in ((workers, "state"), (lanes, "queued")):
        first, *rest = text.splitlines()
        assert head in first and len(rest) == 2
        # Aligned: each column begins, or ends, where its title does.
        for title in re.finditer(r"\S+( \S+)*", first):
            begin, end = title.span()
            for row in rest:
                fits_left = row[begin] != " " and (begin == 0 or row[begin - 1] == " ")
                fits_right = row[end - 1 : end].strip() and row[end : end + 1] in ("", " ")
                assert fits_left or fits_right, (title, row)
    assert {line.split()[2] for line in workers.splitlines()[1:]} == {
        str(pid) for pid in running.pids().values()
    }


def test_status_while_a_slot_is_empty(apps, path):
    options = ("--workers", 1, "--respawn", 60, "--backoff", 60, "--give-up", 0)
    with Running("--control", path, *options, "exits_at_once.py", cwd=apps) as running:
        running.wait_for("exit", code=7)
        [slot] = status_of(running, path)["slots"]
        assert [worker["pid"] for worker in slot["workers"]] in ([], [None])
        assert 0 < slot["next_try"] <= 80
        code, out, _ = ask("--control", path, "status")
        assert code == 1 and "no lanes" in out
        assert any(line.startswith("slot 0: exited with code 7") for line in out)
        assert slot["workers"] or any("next try in" in line for line in out)


# ---- reload --------------------------------------------------------------------------


def test_reload_and_wait(running, path):
    code, out, err = ask("--control", path, running.process.pid, "reload", "--wait")
    assert (code, err, len(out)) == (0, [], 3)
    assert re.fullmatch(r"worker 0: ready after \d\.\d+ s", out[0])
    assert re.fullmatch(r"worker 1: ready after \d\.\d+ s", out[1])
    assert re.fullmatch(r"reload: generation 2 serves after \d\.\d+ s", out[2])
    assert running.wait_for("reload")["generation"] == 2
    assert status_of(running, path)["generation"] == 2


def test_reload_and_wait_for_machines(running, path):
    code, out, _ = ask("--control", path, "reload", "--wait", "--json")
    answer = json.loads(out[0])
    assert (code, answer["ok"], answer["generation"]) == (0, True, 2)
    assert answer["verdicts"].keys() == {"0", "1"}


def test_a_failed_reload(running, path, apps):
    edit(apps / "http_server.py", "VERSION =", "import no_such_module\nVERSION =")
    before = running.pids()
    code, out, err = ask("--control", path, "reload", "--wait")
    assert (code, err, len(out)) == (1, [], 3)
    assert [line.split(":")[0] for line in out] == ["worker 0", "worker 1", "reload failed"]
    assert re.search(r"worker [01] exited with code 1\b", out[2])
    status = status_of(running, path)
    if status["door"] == "notify":  # such workers are forked: they tell their error
        assert "ModuleNotFoundError" in out[2]
    assert status["generation"] == 1
    assert {s["slot"]: s["workers"][0]["pid"] for s in status["slots"]} == before


def test_reload_without_wait(running, path):
    code, out, err = ask("--control", path, "reload")
    assert (code, err, len(out)) == (0, [], 1)
    assert running.wait_for("reload")["ok"]


def test_the_master_is_killed_meanwhile(hanging, path):
    """And no worker holds the connection: the end is seen at once."""
    with asking("--control", path, "reload", "--wait") as process:
        hanging.wait_each("online", 2, generation=2)
        hanging.process.kill()
        code, out, err = ends(process)
    assert (code, out, len(err)) == (1, [], 1)
    assert "ended" in err[0]
    assert ask("--control", path, "status")[0] == 2


def test_the_master_shuts_down_meanwhile(hanging, path):
    with asking("--control", path, "reload", "--wait") as process:
        hanging.wait_each("online", 2, generation=2)
        hanging.signal(signal.SIGTERM)
        code, out, _ = ends(process)
    assert code == 1
    assert out[-1] == "reload failed: the cluster is shutting down"
    assert hanging.wait() == 0
    assert not os.path.lexists(path)


def test_a_superseded_reload_says_so(hanging, path):
    with asking("--control", path, "reload", "--wait") as process:
        hanging.wait_each("online", 2, generation=2)
        assert ask("--control", path, "reload")[0] == 0
        code, out, _ = ends(process)
    assert code == 1
    assert "superseded" in out[-1]


def test_status_during_a_reload(hanging, path):
    assert ask("--control", path, "reload")[0] == 0
    status = status_of(hanging, path)
    assert (status["generation"], status["reloading"]) == (1, 2)
    generations = [[w["generation"] for w in slot["workers"]] for slot in status["slots"]]
    assert generations == [[1, 2], [1, 2]]
    assert {lane["generation"] for lane in status["lanes"]} == {1}


def test_timeout_while_waiting(hanging, path):
    code, out, err = ask("--control", path, "reload", "--wait", "--timeout", "0.3")
    assert (code, out, len(err)) == (1, [], 1)
    assert "goes on" in err[0]
    assert status_of(hanging, path)["reloading"] == 2


def test_reload_during_shutdown_is_not_accepted(apps, path):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        with socket.create_connection(("127.0.0.1", running.port)) as held:
            held.sendall(b"GET / HT")  # owes an answer: keeps its worker, and so the master
            until(lambda: sum(lane["queued"] for lane in status_of(running, path)["lanes"]) == 0)
            for pid in running.pids().values():
                stop(pid)
            running.signal(signal.SIGTERM)
            assert status_of(running, path)["closing"]
            code, out, _ = ask("--control", path, "reload")
            assert (code, out[-1]) == (1, "reload failed: the cluster is shutting down")
            for pid in running.pids().values():
                os.kill(pid, signal.SIGCONT)


# ---- whom one cannot ask -------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        (), ("1",), ("1", "frobnicate"), ("1", "status", "more"), ("0", "status"),
        ("1", "status", "--wait"), ("1", "reload", "--timeout", "soon"), ("--no-such-option",),
        ("1", "reload", "--timeout", "nan"), ("1", "reload", "--timeout", "0"),
    ],
)  # fmt: skip
def test_usage_errors(words):
    one_line_of_usage(*words)


def test_no_such_master(tmp_path, path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert "no such master" in one_line_of_usage(gone.pid, "status")
    assert "no such master" in one_line_of_usage(os.getpid(), "reload", "--wait")
    assert "no such master" in one_line_of_usage("--control", path, "status")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert "no such master" in one_line_of_usage("--control", path, "status")
    assert one_line_of_usage("--control", "x" * 200, "status")
    (tmp_path / "file").touch()
    assert one_line_of_usage("--control", tmp_path / "file", "status")


def test_another_master_than_the_one_meant(running, path):
    assert "belongs to" in one_line_of_usage("--control", path, os.getpid(), "reload")
    assert running.count("reload") == 0


@as_root
def test_not_permitted(apps):
    # The interpreter may be out of that user's reach: everything is imported before.
    code = f"""if True:
        import os, sys
        from recluster import ctl
        from recluster.verbs import asked, look, reload
        asked._parser(look.STATUS, "", True).parse_args([])
        os.setgid({NOBODY}); os.setuid({NOBODY})
        sys.exit(ctl.main(sys.argv[1:]))
        """
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = f"{directory}/ctl.sock"
        with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as running:
            running.wait_each("ready", 2)
            for words in (["status"], ["reload", "--wait"], [str(running.process.pid), "reload"]):
                done = subprocess.run(
                    [sys.executable, "-c", code, "--control", path, *words],
                    env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                assert done.returncode == 2, done.stderr
                assert re.fullmatch(r"recluster.ctl: not permitted to ask .*\n", done.stderr)
            assert running.count("reload") == 0


def test_a_stopped_master(running, path):
    stop(running.process.pid)
    try:
        code, out, err = ask("--control", path, "status", "--timeout", "0.3")
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    assert (code, out, len(err)) == (1, [], 1)
    assert "did not answer" in err[0]
    assert status_of(running, path)["pid"] == running.process.pid


# ---- the tool's words ----------------------------------------------------------------


def test_spans():
    shown = [tables.span(value) for value in (None, 0.04, 59.94, 60, 3599, 3600, 90061, 864000)]
    assert shown == ["-", "0.0s", "59.9s", "1m00s", "59m59s", "1h00m", "1d01h", "10d00h"]


def test_control_characters_of_an_error_do_not_reach_the_terminal():
    answer = {"ok": False, "why": "a\x1b[31m\nb", "verdicts": {"10": "x\ny", "9": "z"}}
    assert tables.verdict_lines(answer) == [
        "worker 9: z",
        "worker 10: x\\ny",
        "reload failed: a\\x1b[31m\\nb",
    ]
