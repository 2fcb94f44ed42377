"""The verbs of `recluster` as one types them, and masters in a directory of their own."""

import json
import subprocess
import sys

from ctlcase import FAST
from harness import ENVIRONMENT, Running


class Masters:
    """Those of one run directory, and the verbs that see no others."""

    def __init__(self, apps, directory):
        self.apps, self.directory = apps, directory
        self.env = {"RECLUSTER_RUN_DIRECTORY": str(directory)}

    def start(self, *options, target=("http_server.py", "0"), workers=2):
        words = (*FAST, "--workers", workers, *options, *target)
        return Running(*words, cwd=self.apps, env=self.env)

    def recluster(self, *words, **more):
        """(exit code, lines of standard output, of standard error)."""
        done = subprocess.run(
            [sys.executable, "-m", "recluster", *map(str, words)],
            env={**ENVIRONMENT, **self.env},
            cwd=self.apps,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            **more,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def asked(self, *words):
        """The answer of a verb that does what it is told."""
        code, out, err = self.recluster(*words)
        assert (code, err) == (0, []), (out, err)
        return out

    def refused(self, *words, code=1):
        """The one line that says why not."""
        got, out, err = self.recluster(*words)
        assert (got, out, len(err)) == (code, [], 1), (out, err)
        return err[0]

    def listed(self):
        return json.loads(self.asked("ls", "--json")[0])
