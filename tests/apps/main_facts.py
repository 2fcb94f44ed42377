"""Prints, as JSON, everything by which a program can tell how it was started."""

import json

AT_START = sorted(globals())

import atexit  # noqa: E402
import gc  # noqa: E402
import inspect  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import pickle  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

import __main__  # noqa: E402

ANNOTATED: int = 1


class Thing:
    """To be pickled by reference to __main__."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Thing and other.value == self.value

    __hash__ = None


def double(thing):
    return Thing(thing.value * 2), __name__, multiprocessing.current_process().name[:4]


def by_process(method):
    if method != "fork" and __file__.endswith("__main__.py"):
        return "multiprocessing does not import such a main"
    with multiprocessing.get_context(method).Pool(1) as pool:
        thing, name, process = pool.apply(double, (Thing(21),))
    return thing == Thing(42), name, process


def in_thread():
    threading.main_thread().join()
    print("the last thread ends after main", flush=True)


def descriptor(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}").split(":")[0]
    except OSError:
        return None


def facts():
    main = __main__
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR2, signal.SIGCHLD)
    channel = os.environ.get("NODE_CHANNEL_FD")
    own = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and fd != channel]
    return {
        "name": main.__name__,
        "file": getattr(main, "__file__", None),
        "argv": sys.argv,
        "path": sys.path,
        "orig_argv": sys.orig_argv,
        "spec": [getattr(main.__spec__, name, None) for name in ("name", "origin", "cached")],
        "builtins": type(main.__builtins__).__name__,
        "annotations": repr(main.__annotations__),
        "loader": type(main.__loader__).__name__,
        "loader_path": getattr(main.__loader__, "path", None),
        "package": main.__package__,
        "doc": main.__doc__,
        "cached": getattr(main, "__cached__", "absent"),
        "names at start": AT_START,
        "same main": sys.modules["__main__"] is main and vars(main) is globals(),
        "pickle": pickle.loads(pickle.dumps(Thing(3))) == Thing(3),
        "pickle module": Thing.__module__,
        "source": inspect.getsource(double),
        "fork": by_process("fork"),
        "spawn": by_process("spawn"),
        "forkserver": by_process("forkserver"),
        "flags": repr(sys.flags),
        "warnings": sys.warnoptions,
        "signals": [repr(signal.getsignal(number)) for number in numbers],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "threads": [thread.name for thread in threading.enumerate()],
        "main thread": threading.current_thread() is threading.main_thread(),
        "descriptors": sorted(filter(None, map(descriptor, own))),
        "stdout": (sys.stdout.line_buffering, sys.stdout.encoding, sys.stdout.errors),
        "stderr": (sys.stderr.line_buffering, sys.stderr.encoding, sys.stderr.errors),
        "cwd": os.getcwd(),
        "umask": os.umask(0o22),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "environment": sorted(os.environ),
    }


if __name__ == "__main__":
    atexit.register(print, "at exit")
    print(json.dumps(facts(), indent=1))
    threading.Thread(target=in_thread).start()
    sys.stdout.write("the end, not flushed by the program")
    sys.exit(5)
