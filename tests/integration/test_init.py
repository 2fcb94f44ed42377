"""recluster init: files for a command line, and what their readers say of them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ENVIRONMENT, GENEROUS

from recluster.verbs.files import systemd

PYTHON = str(Path(sys.executable).absolute())


def init(*words, cwd, code=0, env=()):
    """What is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "recluster", "init", *map(str, words)],
        cwd=cwd,
        env={**ENVIRONMENT, "PWD": str(cwd), **dict(env)},
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert not done.stdout and len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr
    assert not done.stderr
    return done.stdout


def entries(unit):
    """Name -> the last value; comments and sections left out."""
    found = {}
    for line in unit.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


# ---- systemd --------------------------------------------------------------------------------


def test_a_unit_says_what_the_options_mean(apps):
    options = ("-w", 8, "--boots", 2, "--ready-timeout", 20, "--shutdown-timeout", 50)
    found = entries(init("systemd", *options, "--shutdown-delay", 5, "http_server.py", 1, cwd=apps))
    assert found["KillMode"] == "mixed" and found["TimeoutStopSec"] == "65"
    assert found["TimeoutStartSec"] == "90"  # four times two, and some
    assert found["WorkingDirectory"] == str(apps)
    assert found["ExecStart"].startswith(f"{PYTHON} -m recluster -w 8 ")
    assert found["ExecStart"].endswith(" http_server.py 1")
    none = entries(init("systemd", "--ready-timeout", "none", "http_server.py", 1, cwd=apps))
    assert none["TimeoutStartSec"] == "infinity"


@pytest.mark.parametrize("known, kind", [(252, "notify"), (253, "notify-reload")])
def test_the_type_is_what_systemd_knows(apps, known, kind, monkeypatch):
    from recluster.verbs.files.subject import Subject

    monkeypatch.chdir(apps)
    text = systemd.unit(Subject.of("systemd", ["http_server.py", "1"]), known)
    found = entries(text)
    assert found["Type"] == kind
    assert ("ExecReload" in found) == (known < 253)
    assert "notify-reload" in text and "ExecReload=" in text  # the other is a comment


def test_a_current_link_is_followed_by_cwd(apps, tmp_path):
    releases = tmp_path / "releases"
    releases.mkdir()
    shutil.copytree(apps, releases / "1")
    (tmp_path / "current").symlink_to("releases/1")
    here = tmp_path / "current"
    found = entries(init("systemd", "-w", 2, "http_server.py", 1, cwd=here))
    assert found["WorkingDirectory"] == str(tmp_path)
    assert f" --cwd {here} http_server.py 1" in found["ExecStart"]
    given = ("--cwd", "current", "-w", 2, "http_server.py")
    assert f" -w 2 --cwd {here} http_server" in init("systemd", *given, cwd=tmp_path)


def test_words_are_quoted_as_systemd_reads_them(apps):
    odd = ["a b", "50%", "$HOME", 'say "x"', "back\\slash", "semi;colon", "it's", ""]
    text = init("systemd", "http_server.py", *odd, cwd=apps)
    line = entries(text)["ExecStart"]
    assert '"a b" 50%% $$HOME "say \\"x\\"" back\\\\slash "semi;colon" "it\'s" ""' in line


def test_what_comes_by_the_environment_is_in_the_file(apps):
    env = {"RECLUSTER_WORKERS": "7", "RECLUSTER_LOG": "no"}
    found = entries(init("systemd", "http_server.py", 1, cwd=apps, env=env))
    assert "RECLUSTER_WORKERS=7" in found["Environment"]
    assert found["FileDescriptorStoreMax"] == "35"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("more", [(), ("--user", "daemon", "--env", "A=$x 5%")])
def test_systemd_analyze_finds_nothing(apps, tmp_path, more):
    file = tmp_path / "web.service"
    file.write_text(init("systemd", "-w", 2, *more, "http_server.py", 8000, cwd=apps))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file],
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stderr.splitlines() if "web.service" in line]
    # Who runs this may be nobody, and then the unit's user is too.
    assert all("Special user nobody" in line for line in found), done.stderr


# ---- containers -----------------------------------------------------------------------------


def test_a_dockerfile(apps):
    text = init("docker", "-w", 2, "--shutdown-timeout", 50, "http_server.py", 9000, cwd=apps)
    assert "EXPOSE 9000" in text and "--stop-timeout 60" in text
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.M)
    words = ["-w", "2", "--shutdown-timeout", "50", "http_server.py", "9000"]
    assert json.loads(entry) == ["python", "-m", "recluster", *words]
    (check,) = re.findall(r"^    CMD (.*)$", text, re.M)
    assert json.loads(check)[2:4] == ["recluster", "health"]
    assert "USER 10001:10001" in text
    assert "USER" not in re.findall(
        r"^USER", init("docker", "--user", "nobody", "http_server.py", 1, cwd=apps), re.M
    )


READ_YAML = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"


def parsed(text):
    """By whichever Python here can read YAML."""
    for python in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run(
            [python, "-c", READ_YAML], input=text, capture_output=True, text=True, timeout=GENEROUS
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
        assert "No module" in done.stderr, done.stderr
    return pytest.skip("no Python here reads YAML")


def test_a_manifest(apps):
    options = ("-w", 2, "--shutdown-timeout", 50, "--ready-timeout", 30, "-b", "0.0.0.0:9000")
    text = init("kubernetes", *options, "http_server.py", 9000, cwd=apps)
    assert "terminationGracePeriodSeconds: 65" in text  # preStop, ours, and some
    deployment, service = parsed(text)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:3] == ["python", "-m", "recluster"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"][2:4] == ["recluster", "health"]
    boots = container["startupProbe"]
    assert boots["failureThreshold"] * boots["periodSeconds"] > 30
    assert container["ports"][0]["containerPort"] == 9000
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


def test_a_delay_of_ours_takes_the_place_of_prestop(apps):
    text = init("kubernetes", "--shutdown-delay", 6, "http_server.py", 1, cwd=apps)
    assert "preStop:" not in text.replace("# preStop", "")
    assert "terminationGracePeriodSeconds: 46" in text


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
@pytest.mark.parametrize(
    "words, note",
    [(("-b", "127.0.0.1:80"), "nobody outside reaches"), ((), "a guess")],
)
def test_what_cannot_be_reached_is_said(apps, kind, words, note):
    assert note in init(kind, *words, "http_server.py", cwd=apps)


# ---- where it listens -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, where",
    [
        (("-b", "0.0.0.0:80", "http_server.py", "9"), "127.0.0.1:80"),
        (("-b", "[::]:80", "http_server.py"), "[::1]:80"),
        (("-b", "unix:/run/x.sock", "http_server.py"), "unix:/run/x.sock"),
        (("http_server.py", "8123"), "127.0.0.1:8123"),
        (("-m", "uvicorn", "a:b", "--host", "::1", "--port", "8001"), "[::1]:8001"),
        (("-m", "uvicorn", "a:b", "--uds", "/run/u.sock"), "unix:/run/u.sock"),
        (("-m", "gunicorn", "a:b", "-b", "10.0.0.1:81"), "10.0.0.1:81"),
        (("-m", "hypercorn", "a:b", "--bind=unix:/run/h"), "unix:/run/h"),
        (("-m", "http.server", "8002", "--bind", "127.0.0.3"), "127.0.0.1:8002"),
    ],
)
def test_the_address_is_that_of_the_command_line(apps, words, where):
    text = init("nginx", *words, cwd=apps)
    assert f"    server {where} max_fails=0;" in text and "guess" not in text


def test_what_is_wrong_is_one_line(apps):
    assert "did you mean systemd?" in init("sytemd", "http_server.py", cwd=apps, code=2)
    assert "does not exist" in init("systemd", "none.py", cwd=apps, code=2)
    assert "there is no option --wrokers" in init(
        "nginx", "--wrokers", 2, "http_server.py", cwd=apps, code=2
    )
