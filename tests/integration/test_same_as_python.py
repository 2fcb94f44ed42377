"""A worker is what `python FILE` and `python -m MODULE` are: `__main__`, output, end.

Each program runs twice, by the interpreter and as the one worker of a cluster.
What differs must be on a short list.
"""

import json
import signal
import textwrap

import pytest
from sameness import both

CLUSTER_ENVIRONMENT = {
    "WORKER_ID",
    "RECLUSTER_GENERATION",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
}
SHIM_ENVIRONMENT = {"LD_PRELOAD", "RECLUSTER_SHIM"}  # only where the preload door is used


def program(directory, text):
    (directory / "program.py").write_text(textwrap.dedent(text).lstrip("\n"))


FORMS = {"file": ["program.py"], "module": ["-m", "program"]}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


# ---- what __main__ is ----------------------------------------------------------------


def facts_of(output):
    text, _, rest = output.partition("\n}\n")
    return json.loads(text + "}"), rest


@pytest.mark.parametrize(
    "args",
    [
        ["main_facts.py", "one", "--two"],
        ["./main_facts.py"],
        ["-m", "main_facts", "one", "-m", "x"],
        ["-m", "package", "argument"],
        ["-m", "package.inner"],
        ["package"],
    ],
    ids=" ".join,
)
def test_main(args, apps):
    package = apps / "package"
    package.mkdir()
    for name in ("__main__.py", "inner.py"):
        (package / name).write_bytes((apps / "main_facts.py").read_bytes())
    if args[0] == "-m":
        (package / "__init__.py").write_text("")
    python, worker = both(args, apps)
    expected, expected_rest = facts_of(python[0])
    found, found_rest = facts_of(worker[0])
    assert CLUSTER_ENVIRONMENT.issubset(found["environment"])
    more = CLUSTER_ENVIRONMENT | SHIM_ENVIRONMENT
    for facts in (expected, found):  # a sanitized run has an LD_PRELOAD of its own
        facts["environment"] = [name for name in facts["environment"] if name not in more]
    assert found == expected
    assert found_rest == expected_rest
    assert "at exit" in found_rest and "the last thread" in found_rest
    assert worker[1:] == python[1:]
    assert worker[2] == 5


def test_main_by_absolute_path(apps):
    python, worker = both([str(apps / "main_facts.py")], apps.parent)
    found, expected = facts_of(worker[0])[0], facts_of(python[0])[0]
    found["environment"] = expected["environment"]
    assert found == expected


# ---- how it ends ---------------------------------------------------------------------

ENDS = {
    "falls off its end": "print('done')",
    "exit 3": "import sys; sys.exit(3)",
    "exit None": "import sys; sys.exit()",
    "exit text": "import sys; print('out'); sys.exit('text for stderr')",
    "exit other": "import sys; sys.exit(('a', 'tuple'))",
    "exit large": "import sys; sys.exit(259)",
    "os._exit": "import os; print('lost in the buffer', end=''); os._exit(9)",
    "exception": """
        def inner():
            return {}["missing"]
        def outer():
            try:
                inner()
            except KeyError as error:
                raise ValueError("of the program") from error
        outer()
        """,
    "exception group": """
        raise OSError(2, "nothing here")
        """,
    "syntax error": "x = (\n",
    "wrong indentation": "if True:\nx = 1\n",
    "import error": "import no_such_module_anywhere",
    "keyboard interrupt": "print('before', end=''); raise KeyboardInterrupt",
    "keyboard interrupt at exit": """
        import atexit
        atexit.register(print, "at exit")
        raise KeyboardInterrupt("text")
        """,
    "killed": "import os; os.kill(os.getpid(), 9)",
    "aborted": "import os; os.abort()",
    "own excepthook": """
        import sys
        sys.excepthook = lambda kind, value, trace: print("hook", kind, value)
        raise ValueError("x")
        """,
    "exception in atexit": """
        import atexit
        @atexit.register
        def broken():
            raise ValueError("at exit")
        print("main")
        """,
    "exit in atexit": """
        import atexit, sys
        atexit.register(print, "first in, last out")
        atexit.register(sys.exit, 4)
        """,
    "exception in a thread": """
        import threading
        thread = threading.Thread(target=lambda: 1 / 0, name="one")
        thread.start()
        thread.join()
        """,
    "logging": """
        import logging
        logging.basicConfig(format="%(levelname)s %(message)s %(module)s %(processName)s")
        logging.warning("a warning")
        """,
    "logging handler that buffers": """
        import logging, logging.handlers, sys
        target = logging.StreamHandler(sys.stdout)
        logging.getLogger().addHandler(logging.handlers.MemoryHandler(10, target=target))
        logging.getLogger().warning("flushed by logging.shutdown")
        """,
    "destructor": """
        class Last:
            def __del__(self):
                print("destroyed")
        kept = Last()
        """,
    "warning": """
        import warnings
        warnings.warn("of the program", stacklevel=1)
        """,
    "recursion": """
        def deep(n):
            return deep(n + 1)
        deep(0)
        """,
    "encoding": "# -*- coding: latin-1 -*-\nprint(len('\u00e9'))",
    "future": """
        from __future__ import annotations
        x: nothing
        print(__annotations__)
        """,
    "future is not inherited": """
        def f(x: int): pass
        print(f.__annotations__)
        """,
    "input": "print(repr(input()))",
    "closed stdout": "import os, sys; sys.stdout.write('x'); os.close(1)",
}


@pytest.mark.parametrize("end", ENDS)
def test_end(end, form, tmp_path):
    program(tmp_path, ENDS[end])
    python, worker = both(form, tmp_path)
    assert worker == python
    assert (python[2] == 0) == (
        end
        in {
            "falls off its end",
            "exit None",
            "exception in atexit",
            "exit in atexit",
            "exception in a thread",
            "logging",
            "logging handler that buffers",
            "destructor",
            "warning",
            "encoding",
            "future",
            "future is not inherited",
        }
    )


def test_signals_end_it_as_they_end_python(tmp_path):
    program(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()")
    python, worker = both(["program.py"], tmp_path)
    assert worker == python
    assert worker[2] == -signal.SIGINT
