"""Each command of docs/operations.md, run. What is not here (a Docker daemon, a Kubernetes) is
stood in for by a script that looks at what it is given."""

import json
import re
import shutil
import sys

import pytest
from clients import Broken, get
from ctlcase import as_root
from harness import free_port, until
from nginxconf import temporary
from operations import Shell, blocks
from test_init import parsed
from test_systemd import SYSTEMD, UserManager

STORIES = {"deploy", "systemd", "container", "kubernetes", "nginx", "haproxy"}  # a test for each


def test_every_block_is_of_a_story_that_is_tested():
    found = blocks()
    assert {one.story for one in found} == STORIES
    assert all(one.kind for one in found), "a block without a comment above it"
    assert all(f"test_{story}" in globals() for story in STORIES)


@pytest.fixture
def port():
    return free_port()


def version(port):
    """Who answers there; None: nobody, or not this server."""
    try:
        return get(port)["version"]
    except (OSError, Broken):
        return None


def server(apps, port, text='"1"'):
    """server.py, which takes no word."""
    program = (apps / "http_server.py").read_text().replace('VERSION = "1"', f"VERSION = {text}")
    return program.replace("int(sys.argv[1])", str(port))


def status(shell):
    out = shell.run("recluster status web --json || true")
    return json.loads(out) if out else {}


def test_deploy(apps, tmp_path, port):
    root = tmp_path / "web"
    for release, text in (("42", '"1"'), ("43", '"2"'), ("44", "oh no")):
        (root / "releases" / release).mkdir(parents=True)
        (root / "releases" / release / "server.py").write_text(server(apps, port, text))
    (root / "current").symlink_to("releases/42")
    start, script, deploy, canary = blocks("deploy")
    with Shell(root, {"/srv/web": root, ":8000": f":{port}"}) as shell:
        shell.write(root / script.file, shell.here(script.text))
        shell.run(start.text.strip())
        until(lambda: version(port) == "1")
        until(lambda: status(shell).get("health") == "ready")
        shell.run(deploy.text)
        assert version(port) == "2" and (root / "current").readlink().name == "43"
        shell.run("./deploy.sh 44", code=1)
        assert version(port) == "2" and (root / "current").readlink().name == "43"
        for line in canary.lines():
            shell.run(line)
        assert version(port) == "2"
        shell.run("./deploy.sh 42")
        assert version(port) == "1"
        shell.run("recluster stop web --wait")


@as_root
@pytest.mark.skipif(
    not (shutil.which(SYSTEMD) and shutil.which("nsenter")), reason="systemd is not installed"
)
def test_systemd(apps, tmp_path, port):
    """As a user's manager, for the system's is not ours; the commands are the same."""
    manager = UserManager(tmp_path)
    try:
        until(manager.is_up)
        (tmp_path / "server.py").write_text(server(apps, port))
        where = {"/etc/systemd/system": manager.units}
        with Shell(tmp_path, where) as shell:
            shell.env.update({**manager.env, "PATH": shell.env["PATH"]})
            target = f"nsenter -t {manager.inside} -m -p"
            real = shutil.which("systemctl")
            shell.command("systemctl", f'exec {target} {real} --user "$@"')
            (block,) = blocks("systemd")
            for line in block.lines():
                out = shell.run(line)
                if "status" in line:
                    assert "generation 1, 2 of 2 ready" in out
                if "enable" in line:
                    assert version(port) == "1"
                    (tmp_path / "server.py").write_text(server(apps, port, '"2"') + "\n#\n")
                if "reload web" in line:
                    assert version(port) == "2"
            assert version(port) is None
    finally:
        manager.end()


def test_container(apps, tmp_path, port):
    """What `docker` gets is what the head of the Dockerfile says, and its entry starts."""
    (tmp_path / "server.py").write_text(server(apps, port).replace("127.0.0.1", "0.0.0.0"))
    with Shell(tmp_path, {":8000 ": f":{port} "}) as shell:
        shell.command("docker", 'echo "docker $*" >> typed')
        shell.command("python", f'exec {sys.executable} "$@"')
        (block,) = blocks("container")
        for line in block.lines():
            shell.run(line)
        typed = (tmp_path / "typed").read_text().splitlines()
        text = (tmp_path / "Dockerfile").read_text()
        told = text.replace(" \\\n#    ", "").replace(str(port), "8000")
        assert [line for line in told.splitlines() if line.startswith("# docker ")] == [
            f"# {line.replace(str(port), '8000')}" for line in typed[:3]
        ]
        (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.M)
        shell.run(" ".join(json.loads(entry)) + " &")
        until(lambda: version(port) == "1")
        (check,) = re.findall(r"^    CMD (.*)$", text, re.M)
        until(lambda: shell.run(" ".join(json.loads(check)) + "; true").startswith("ready"))
        shell.run(typed[2].partition("exec web ")[2])  # the reload
        shell.run("recluster stop --wait")


def test_kubernetes(apps, tmp_path, port):
    (tmp_path / "server.py").write_text(server(apps, port))
    with Shell(tmp_path) as shell:
        shell.command("kubectl", 'echo "$*" >> typed')
        (block,) = blocks("kubernetes")
        for line in block.lines():
            shell.run(line)
        typed = (tmp_path / "typed").read_text().splitlines()
        deployment, service = parsed((tmp_path / "web.yaml").read_text())
        assert typed[1].endswith(f"deployment/{deployment['metadata']['name']}")
        assert deployment["kind"] == "Deployment" and service["kind"] == "Service"


def test_nginx(apps, tmp_path, port):
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    (tmp_path / "server.py").write_text(server(apps, port))
    (tmp_path / "conf.d").mkdir()
    front, real = free_port(), shutil.which("nginx")
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/errors;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary(tmp_path)}\n"
        f"include {tmp_path}/conf.d/*.conf; }}\n"
    )
    where = {"/etc/nginx/conf.d": tmp_path / "conf.d", ":8000": f":{port}"}
    with Shell(tmp_path, where) as shell:
        elsewhere = f"sed -i 's/listen 80;/listen 127.0.0.1:{front};/' conf.d/web.conf 2>/dev/null"
        run = f'{real} -e {tmp_path}/errors -c {tmp_path}/nginx.conf "$@"'
        shell.command("nginx", f"{elsewhere}; exec {run}")
        shell.run("nginx")
        try:
            shell.run(f"recluster --name web -w 1 -b 127.0.0.1:{port} server.py &")
            (block,) = blocks("nginx")
            for line in block.lines():
                shell.run(line)
            until(lambda: version(front) == "1")
        finally:
            shell.run("nginx -s quit")


def test_haproxy(apps, tmp_path, port):
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    (tmp_path / "server.py").write_text(server(apps, port))
    where = {"/etc/haproxy/haproxy.cfg": tmp_path / "haproxy.cfg", ":8000": f":{port}"}
    with Shell(tmp_path, where) as shell:
        (block,) = blocks("haproxy")
        for line in block.lines():
            shell.run(line)
