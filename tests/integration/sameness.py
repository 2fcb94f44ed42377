"""One program, run by the interpreter and as the one worker of a cluster."""

import re
import signal
import subprocess
import sys

from harness import ENVIRONMENT, Running

# The list: addresses, and how deep the stack is below the program.
DIFFERENCES = {
    r" at 0x[0-9a-f]+": "",
    r"repeated \d+ more times": "repeated",
}


def comparable(text):
    for pattern, common in DIFFERENCES.items():
        text = re.sub(pattern, common, text)
    return text


def by_python(args, cwd, flags=(), env=None):
    with (cwd / "stdout").open("w+") as stdout, (cwd / "stderr").open("w+") as stderr:
        done = subprocess.run(
            [sys.executable, *flags, *args],
            cwd=cwd,
            env={**ENVIRONMENT, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            timeout=30,
        )
        for file in (stdout, stderr):
            file.seek(0)
        return stdout.read(), comparable(stderr.read()), done.returncode


def by_recluster(args, cwd, flags=(), env=None):
    """Output and end of the first worker; as subprocess gives them."""
    with (cwd / "stdout").open("w+") as stdout:
        options = ("--workers", 1, "--respawn", 100, "--give-up", 0)
        with Running(*options, *args, cwd=cwd, stdout=stdout, flags=flags, env=env) as running:
            event = running.wait_for("exit")
            stderr = running.stderr().splitlines(keepends=True)
        stdout.seek(0)
        own = "".join(line for line in stderr if not line.startswith("recluster: "))
        code = event["code"]
        if event["signal"]:
            code = -signal.Signals[event["signal"]]
        return stdout.read(), comparable(own), code


def both(args, cwd, flags=(), env=None):
    return by_python(args, cwd, flags, env), by_recluster(args, cwd, flags, env)
