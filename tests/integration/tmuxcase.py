"""A program in a pane of a real tmux: what a person would see. The server is one of our own, and is
spoken to in control mode, which tells of all that a pane writes: so nothing is looked for in
vain."""

import os
import select
import shutil
import subprocess
import tempfile
import time

import pytest
from harness import ENVIRONMENT, GENEROUS

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
CONFIG = "set -g status off\nset -g history-limit 2000\n"
OVER = "(over: 0)"
RUN = '"$@"; echo "(over: $?)"; exec cat'  # the pane stays when the program has ended


class Tmux:
    def __init__(self, *words, width, height=24, cwd=None, env=None):
        self.folder = tempfile.mkdtemp(prefix="recluster-tmux-")
        with open(f"{self.folder}/conf", "w") as config:
            config.write(CONFIG)
        self.tmux = ["tmux", "-u", "-S", f"{self.folder}/socket", "-f", f"{self.folder}/conf"]
        size = ["-x", str(width), "-y", str(height)]
        subprocess.run(
            [*self.tmux, "new-session", "-d", *size, "sh", "-c", RUN, "-", *map(str, words)],
            cwd=cwd, env={**ENVIRONMENT, **(env or {})}, stdin=subprocess.DEVNULL,
            timeout=GENEROUS, check=True,
        )  # fmt: skip
        self.client = subprocess.Popen(
            [*self.tmux, "-C", "attach", "-f", "ignore-size"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.client.kill()
        subprocess.run([*self.tmux, "kill-server"], timeout=GENEROUS, check=False)
        self.client.wait(GENEROUS)
        self.client.stdin.close()
        self.client.stdout.close()
        shutil.rmtree(self.folder)

    def _line(self, deadline):
        """Of the client; None: not in time."""
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.client.stdout], [], [], left)[0]:
                return None
            data = os.read(self.client.stdout.fileno(), 1 << 16)
            assert data, "tmux has ended"
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def ask(self, command):
        """What it answers to a command of ours (flag 1), and whether a pane wrote before that."""
        self.client.stdin.write(command.encode() + b"\n")
        deadline, answer, wrote = time.monotonic() + GENEROUS, None, False
        while (line := self._line(deadline)) is not None:
            word, *more = line.split(" ")
            if answer is None:
                wrote |= word == "%output"
                answer = [] if word == "%begin" and more[2] == "1" else None
            elif word in ("%end", "%error") and len(more) == len(("time", "number", "flags")):
                assert word == "%end", (command, answer)
                return answer, wrote
            else:
                answer.append(line)
        raise AssertionError(f"tmux does not answer {command!r}")

    def captured(self, flags=""):
        answer, _ = self.ask(f"capture-pane -p {flags}")
        return "\n".join(line.rstrip() for line in answer).rstrip("\n") + "\n"

    def shows(self, condition, flags=""):
        """Until what a capture shows fulfils it; returns that."""
        deadline = time.monotonic() + GENEROUS
        while not condition(text := self.captured(flags)):
            while (line := self._line(deadline)) is not None and not line.startswith("%output"):
                pass
            assert line is not None, f"not shown in time:\n{text}"
        return text

    def press(self, keys):
        self.ask(f"send-keys -l {keys}")

    def marked(self):
        """The lines that are shown in reverse."""
        lines = self.captured(), self.captured("-e")
        pairs = zip(*(text.splitlines() for text in lines), strict=True)
        return [plain for plain, coloured in pairs if "\x1b[7m" in coloured]
