"""What `recluster` answers to words: help, words that are none, and `check`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ctlcase import as_root
from harness import ENVIRONMENT
from verbcase import Masters

from recluster.base import nearest


@pytest.fixture
def masters(apps, tmp_path):
    return Masters(apps, tmp_path / "run")


# ---- help ----------------------------------------------------------------------------


def test_help_fits_a_screen(masters):
    lines = masters.asked("--help")
    assert len(lines) < 60 and max(map(len, lines)) <= 80
    titles = ["Basics", "Readiness and reload", "Draining", "Balance"]
    assert [line for line in lines if line in titles] == titles
    assert any(line.startswith("Expert (--help-all): ") for line in lines)
    assert masters.asked("-h") == lines == masters.asked("run", "--help")


def test_help_all_tells_more(masters):
    lines = masters.asked("--help-all")
    assert max(map(len, lines)) <= 80 and "Expert" in lines
    assert "--door DOOR" in "\n".join(lines) and "RECLUSTER_DOOR" in "\n".join(lines)


@pytest.mark.parametrize(
    "verb", ["ls", "status", "health", "reload", "promote", "rollback", "weights", "scale",
             "restart", "drain", "resume", "stop", "check"],
)  # fmt: skip
def test_each_verb_has_help(masters, verb):
    assert masters.asked(verb, "--help")[0].startswith(f"usage: recluster {verb}")


def test_help_into_a_pipe_that_nobody_reads(masters):
    read, write = os.pipe()
    os.close(read)
    check = ["check", "--print", "--", "true"]
    for words in (["--help"], ["ls"], check, [check[0], *check[2:]]):
        done = subprocess.run(
            [sys.executable, "-m", "recluster", *words], env={**ENVIRONMENT, **masters.env},
            stdout=write, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    os.close(write)


# ---- did you mean ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("uvicorn", "main:app"), "did you forget -m? recluster -m uvicorn main:app"),
        (("http.server", "80"), "did you forget -m? recluster -m http.server 80"),
        (("main:app",), "it names an application, which a server runs: recluster -m uvicorn"),
        (("main:make()",), "which a server runs: recluster -m uvicorn main:make()"),
        (("flasky:app",), "which a server runs: recluster -m gunicorn flasky:app"),
        (("qqqqqqqqqqqq.py",), None),
        (("http_servr.py", "0"), "did you mean http_server.py?"),
        (("./http_servr.py",), "did you mean ./http_server.py?"),
        (("stauts",), "did you mean: recluster status"),
        (("-w", "2", "reload"), "the verb stands first: recluster reload ..."),
        (("true", "x"), "it is a command: recluster -- true x"),
    ],
)
def test_a_file_that_does_not_exist(masters, apps, words, answer):
    (apps / "main.py").write_text("app = 1\n")
    (apps / "flasky.py").write_text("import flask\napp = flask.Flask(__name__)\n")
    (said,) = masters.recluster(*words)[2]
    assert said.startswith("recluster: FILE: ") and "does not exist" in said
    if answer:
        assert answer in said
    else:
        assert said.endswith("does not exist")
    assert masters.recluster(*words)[0] == 2


@pytest.mark.parametrize(
    ("flag", "answer"),
    [
        ("--worker=3", "there is no option --worker; did you mean --workers?"),
        ("--balence", "did you mean --balance?"),
        ("--reload", "code is swapped by `recluster reload`"),
        ("--pid", "`recluster ls` finds masters"),
        ("--quux", "there is no option --quux (see --help)"),
    ],
)
def test_an_option_that_there_is_not(masters, flag, answer):
    assert answer in masters.refused(flag, "http_server.py", code=2)


def test_an_option_that_a_verb_has_not(masters):
    assert "did you mean --canary?" in masters.refused("reload", "--cannary", "0.5", code=2)
    assert "there is no option --wait" in masters.refused("scale", "3", "--wait", code=2)


def test_short_flags(masters):
    with masters.start("-w3", "-b", "127.0.0.1:0", workers=1) as one:
        assert one.wait() == 2  # port 0 is none to wait at; the flag is known
        assert "127.0.0.1:0" in one.stderr()
    with masters.start("-w", 3, workers=1) as one:
        one.wait_each("ready", 3)


def test_nobody_is_sent_to_an_option_that_there_is():
    from recluster.options import FIELDS

    known = {one.flag for one in FIELDS} | {one.short for one in FIELDS}
    assert not known & set(nearest.ELSEWHERE)


# ---- check -------------------------------------------------------------------------------


def found(lines):
    rows = [line.split(None, 2) for line in lines]
    return {(mark, topic): text for mark, topic, text in rows}


def test_check_of_what_works(masters):
    told = found(masters.asked("check", "-w", 3, "http_server.py", 0))
    assert told["yes", "program"].startswith("file http_server.py")
    assert told["yes", "workers"].startswith("3; ")
    assert told["yes", "door"] in ("notify (tried)", "preload (tried)")
    assert ("yes", "RLIMIT_NOFILE") in told and ("yes", "privileges") in told
    assert told["note", "reload"].startswith("up to 6 workers")
    assert masters.asked("ls") == ["no master of this user runs"]


def test_check_says_what_cannot_be(masters):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = masters.recluster("check", "-b", where, "http_server.py", 0)
        assert (code, err) == (1, [])
        assert f"{where}: somebody else listens there" in found(out)["no", "bind"]
    control = masters.apps / "no" / "such" / "ctl.sock"
    code, out, _ = masters.recluster("check", "--control", control, "http_server.py")
    assert code == 1 and ("no", "control") in found(out)


def test_check_tells_of_supervisors_within(masters):
    told = found(masters.asked("check", "-w", 2, "http_server.py", "--workers", 4))
    assert "2 x 4 processes" in told["note", "overlap"]
    told = found(masters.asked("check", "http_server.py", "--reload"))
    assert "leave it out" in told["note", "overlap"]


def test_check_of_a_wrong_command_line(masters):
    assert "does not exist" in masters.refused("check", "missing.py", code=2)
    assert "no option" in masters.refused("check", "--no-such", "http_server.py", code=2)
    masters.refused("check", code=2)


@as_root
def test_check_without_privileges(masters):
    """As it is in a container of the usual kind."""
    drop = "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
    drop += "for bit in range(41): libc.prctl(24, bit, 0, 0, 0)\n"  # PR_CAPBSET_DROP
    drop += f"os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'recluster', 'check', "
    drop += "'-b', '127.0.0.1:80', '--balance', 'round_robin', '--balance-by', 'kernel', "
    drop += "'http_server.py'])"
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    done = subprocess.run(
        [sys.executable, "-c", drop], env={**ENVIRONMENT, **masters.env}, cwd=masters.apps,
        capture_output=True, text=True,
    )  # fmt: skip
    told = found(done.stdout.splitlines())
    assert done.returncode == 1, done.stderr
    assert "refused by the kernel here" in told["no", "balance"]
    assert told["note", "CAP_BPF"].startswith("not here")
    if int(first) > 80:
        assert "127.0.0.1:80" in told["no", "privileges"]
