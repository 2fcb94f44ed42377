"""docs/operations.md, and pages like it, as tests see them: blocks, and a shell in which they
are typed.

A block is four spaces in, behind a comment: `<!-- run: STORY -->` (commands, typed one after
another), `<!-- script: STORY FILE -->` (the content of a file that is executable).
"""

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import ENVIRONMENT, GENEROUS, Pidfd

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCK = re.compile(
    r"^(?:<!-- (run|script): (\S+)(?: (\S+))? -->\n\n)?((?:    .*\n|\n(?=    ))+)", re.M
)


@dataclass(frozen=True)
class Block:
    kind: str  # "run", "script", or "" where nothing is above it
    story: str
    file: str
    text: str

    def lines(self):
        """Commands: what ends with a backslash goes on in the next line."""
        return self.text.replace("\\\n", " ").splitlines()


def blocks(story=None, page=PAGE):
    found = []
    for kind, name, file, text in BLOCK.findall(page.read_text()):
        plain = re.sub(r"^    ", "", text, flags=re.M).strip("\n") + "\n"
        found.append(Block(kind, name, file, plain))
    return [one for one in found if story in (None, one.story)]


class Shell:
    """Types commands in `folder`, with `recluster` on its PATH. `instead`: what stands on the
    page -> what it is here (a port, a folder)."""

    def __init__(self, folder, instead=()):
        self.folder, self.instead = folder, dict(instead)
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.command("recluster", f'exec {sys.executable} -m recluster "$@"')
        self.env = {**ENVIRONMENT, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        self.env["RECLUSTER_RUN_DIRECTORY"] = str(folder / "run")
        self._left = []

    def command(self, name, text):
        self.write(self.bin / name, f"#!/bin/sh\n{text}\n")

    def write(self, path, text):
        path.write_text(text)
        path.chmod(0o755)

    def here(self, text):
        for there, here in self.instead.items():
            text = text.replace(there, str(here))
        return text

    def run(self, line, code=0):
        """Its standard output; what is put into the background ends with the shell."""
        line = self.here(line)
        if line.endswith("&"):
            log = open(self.folder / "log", "ab")  # noqa: SIM115 - the process's
            words = ["/bin/sh", "-c", "exec " + line.rstrip("& ")]
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )
            log.close()
            self._left.append((process, Pidfd(process.pid)))
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * GENEROUS,
        )
        assert done.returncode == code, (
            line,
            done.returncode,
            done.stdout,
            done.stderr,
            self.log(),
        )
        return done.stdout

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text()
        return ""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process, pidfd in self._left:
            pidfd.signal(3)
            assert pidfd.is_dead(GENEROUS)
            process.wait()
            pidfd.close()
