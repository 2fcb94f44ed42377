"""The control socket as a file: where it is, whose it is, and when it goes."""

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap

import pytest
from ctlcase import FAST, NOBODY, as_root, ask, connect, one_line_of_usage, status_of
from harness import ENVIRONMENT, Running

from recluster.base import socketfile
from recluster.control import places


def test_the_command_line_opens_it_at_its_usual_place(apps, tmp_path):
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "RECLUSTER_RUN_DIRECTORY": ""}
    with Running(*FAST, "http_server.py", "0", cwd=apps, env=env) as running:
        running.wait_each("ready", 2)
        directory = places.default_directory(os.geteuid(), env)
        usual = f"{directory}/{running.process.pid}.sock"
        assert stat.S_IMODE(os.lstat(usual).st_mode) == 0o600
        assert os.lstat(usual).st_uid == os.geteuid()
        assert os.lstat(directory).st_mode & 0o022 == 0
        # The tool finds it by the PID alone, whatever its own environment.
        code, out, _ = ask(running.process.pid, "status", "--json")
        assert code == 0 and json.loads(out[0])["pid"] == running.process.pid
        assert running.end() == 0
        assert not os.path.lexists(usual)


@pytest.mark.parametrize("umask", [0, 0o077, 0o277])
def test_mode_0600_under_any_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        with socketfile.listen_at(str(tmp_path / "s")) as listener:
            assert listener.get_inheritable() is False
            mode = stat.S_IMODE(os.lstat(tmp_path / "s").st_mode)
    finally:
        os.umask(before)
    assert mode == 0o600 & ~umask
    assert os.listdir(tmp_path) == ["s"]


def test_none_switches_it_off(apps, tmp_path):
    with Running("--control", "none", *FAST, "http_server.py", "0", cwd=apps) as running:
        running.wait_each("ready", 2)
        assert "no such master" in one_line_of_usage(running.process.pid, "status")


@pytest.mark.parametrize("option", ["", ", control='ctl.sock'"])
def test_the_library_opens_one_only_when_asked(option, apps):
    text = f"""
        import os, recluster
        from recluster import ctl
        cluster = recluster.Cluster("http_server.py", args=["0"], workers=1{option})
        with cluster:
            print(ctl.main(["--control", "ctl.sock", "reload", "--timeout", "0.2"])
                  if not {bool(option)} else os.path.exists("ctl.sock"))
        print(os.path.exists("ctl.sock"))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        cwd=apps, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == (["True", "False"] if option else ["2", "False"]), done.stderr


def test_a_dead_masters_file_is_replaced(apps, path):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as first:
        first.wait_each("ready", 2)
        first.process.kill()
        first.wait()
    assert os.path.lexists(path)
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as second:
        second.wait_each("ready", 2)
        assert status_of(second, path)["pid"] == second.process.pid
        assert second.end() == 0
    assert [name for name in os.listdir(os.path.dirname(path)) if "sock" in name] == []


def test_a_living_masters_file_is_not(running, path, apps):
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as second:
        assert second.wait() == 1
        assert second.log() == [f"recluster: control: {path} is in use by another master"]
        assert second.count("online") == 0
    assert status_of(running, path)["pid"] == running.process.pid


def test_another_file_is_not_replaced(apps, path):
    with open(path, "w") as file:
        file.write("precious")
    with Running("--control", path, *FAST, "http_server.py", "0", cwd=apps) as running:
        assert running.wait() == 1
        assert "is not a socket" in running.stderr()
    with open(path) as file:
        assert file.read() == "precious"


@pytest.mark.parametrize("wrong", ["no/such/folder/ctl.sock", "x" * 150])
def test_a_path_that_cannot_be(wrong, apps):
    with Running("--control", wrong, *FAST, "http_server.py", "0", cwd=apps) as running:
        assert running.wait() == 1
        assert len(running.stderr().splitlines()) == 1 and "control: " in running.stderr()


def test_at_the_end_only_its_own_file_goes(running, path):
    os.rename(path, path + ".old")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        assert running.end() == 0
    assert os.path.lexists(path)


def test_a_file_that_came_in_the_meantime_stays(tmp_path, monkeypatch):
    """Two masters find the same dead socket; the slower one gives way."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    looks, other = socketfile._dead_socket, []

    def slow(there):
        found = looks(there)
        monkeypatch.setattr(socketfile, "_dead_socket", looks)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        other.append(socketfile.listen_at(path))
        return found

    monkeypatch.setattr(socketfile, "_dead_socket", slow)
    with pytest.raises(socketfile.Refused, match="in use by another master"):
        socketfile.listen_at(path)
    with connect(path), other[0] as faster:
        faster.accept()[0].close()
    assert os.listdir(tmp_path) == ["s"]


def test_the_usual_place(tmp_path):
    usual = places.default_directory
    me = os.geteuid()
    assert usual(0, {"XDG_RUNTIME_DIR": str(tmp_path)}) == "/run/recluster"
    assert usual(12345, {}) == "/tmp/recluster-12345"
    assert usual(12345, {"XDG_RUNTIME_DIR": str(tmp_path)}) == "/tmp/recluster-12345"
    assert usual(12345, {"RECLUSTER_RUN_DIRECTORY": str(tmp_path)}) == str(tmp_path)
    assert usual(12345, {"XDG_RUNTIME_DIR": "relative"}) == "/tmp/recluster-12345"
    if me:
        assert usual(me, {"XDG_RUNTIME_DIR": str(tmp_path)}) == f"{tmp_path}/recluster"


def test_the_directory(tmp_path):
    fresh = tmp_path / "fresh"
    socketfile.make_directory(str(fresh))
    socketfile.make_directory(str(fresh))
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    fresh.chmod(0o770)
    with pytest.raises(socketfile.Refused, match="others may write"):
        socketfile.make_directory(str(fresh))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(socketfile.Refused, match="not a directory"):
        socketfile.make_directory(str(tmp_path / "link"))


@as_root
def test_the_directory_of_another_user(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(socketfile.Refused, match="belongs to another user"):
        socketfile.make_directory(str(theirs))
