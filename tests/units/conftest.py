"""Owns the test library: csrc and faults.c compiled by cffi, once per content.

The sources are read once, hashed, and built from that copy in a directory of
the user's own under the temporary directory, so the checkout may be read-only
and may change meanwhile. One process of a run builds, with all cores, and renames its result
into place; the others wait for it, and build for themselves if it has not come to that.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cffi
import pytest
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

from .factscase import dial, idle, serve, server  # noqa: F401 - fixtures
from .harness import Engine
from .kernelcase import balanced, held, least, policy, robin  # noqa: F401 - fixtures
from .udpcase import address, datagrams  # noqa: F401 - fixtures
from .unixcase import folder, path, sockets  # noqa: F401 - fixtures

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
NAME = "recluster_units"
ALONE = ("preload", "bpf")  # what they compile is no part of the engine
FLAGS = [
    "-DRC_QUICK_MS=2000",
    "-std=gnu11",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
PREAMBLE = """
#include "internal.h"
#include "steer/kernel.h"
#include <linux/filter.h>
void fault_arm(int n, int error, const char *name, long number, int sticky);
int fault_disarm(void);
const char *fault_last(void);
int fault_bad_closes(void);
void fault_hook(void (*function)(const char *));
void fault_later(struct rc_engine *, const struct rc_worker *, const struct rc_later *, _Bool, int);
"""


def read_sources():
    paths = [*CSRC.rglob("*.h"), *CSRC.glob("*/*.c")]
    paths = [file for file in paths if file.suffix == ".h" or file.parent.name not in ALONE]
    sources = {str(file.relative_to(CSRC)): file.read_bytes() for file in sorted(paths)}
    sources["faults.c"] = (HERE / "faults.c").read_bytes()
    sources["declarations.h"] = (HERE / "declarations.h").read_bytes()
    return sources


def wrapped(text):
    by_macro = re.findall(r"^WRAP\([^,]+, [^,]+, (\w+)", text, re.MULTILINE)
    by_hand = re.findall(r"^(?:UNCHECKED )?\w+ __wrap_(\w+)\(", text, re.MULTILINE)
    return sorted({*by_macro, *by_hand})


class AllCores(build_ext):
    def build_extensions(self):
        compile_some = self.compiler.compile

        def compile_all(sources, *args, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda one: compile_some([one], *args, **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()


def build(sources, flags, place):
    for name, content in sources.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    text = sources["faults.c"].decode()
    builder = cffi.FFI()
    builder.cdef(re.sub(r"/\*.*?\*/", "", sources["declarations.h"].decode(), flags=re.DOTALL))
    builder.set_source(
        NAME,
        PREAMBLE,
        sources=[str(place / name) for name in sources if name.endswith(".c")],
        include_dirs=[str(place)],
        extra_compile_args=flags,
        extra_link_args=[*flags[len(FLAGS) :], *(f"-Wl,--wrap={name}" for name in wrapped(text))],
    )
    command = AllCores(Distribution({"ext_modules": [builder.distutils_extension(str(place))]}))
    command.build_lib = command.build_temp = str(place)
    command.ensure_finalized()
    command.run()
    (made,) = command.get_outputs()
    Path(made).rename(place / f"{NAME}.so")


@contextlib.contextmanager
def locked(file):
    """Until the block's end, or this process's."""
    fd = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def built():
    sources = read_sources()
    flags = FLAGS + (SANITIZE if os.environ.get("RECLUSTER_SANITIZE") else [])
    facts = [sources, flags, sys.version, cffi.__version__, Path(__file__).read_text()]
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    final = Path(tempfile.gettempdir()) / f"recluster-units-{os.getuid()}-{digest}"
    with locked(Path(f"{final}.lock")):
        if not final.exists():
            ours = Path(tempfile.mkdtemp(prefix=f"{final.name}."))
            build(sources, flags, ours)
            with contextlib.suppress(OSError):  # somebody else was first
                ours.rename(final)
            shutil.rmtree(ours, ignore_errors=True)
    if final.lstat().st_uid != os.getuid():
        raise PermissionError(f"{final} belongs to somebody else")
    return final / f"{NAME}.so"


@pytest.fixture(scope="session")
def module():
    spec = importlib.util.spec_from_file_location(NAME, built())
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="session")
def ffi(module):
    return module.ffi


@pytest.fixture(scope="session")
def lib(module):
    return module.lib


def open_descriptors():
    """Number and target of each open descriptor: a difference names the leak."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one listdir itself had
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture
def fds():
    return open_descriptors


class Fault:
    """The n-th wrapped call fails with `error`; never one that a child makes."""

    def __init__(self, ffi, lib):
        self.ffi, self.lib = ffi, lib

    def arm(self, n, error, name="", number=0, sticky=False):
        self.lib.fault_arm(n, error, name.encode(), number, sticky)

    def disarm(self):
        return self.lib.fault_disarm()

    @contextlib.contextmanager
    def before_each_call(self, function):
        hook = self.ffi.callback(
            "void (*)(const char *)", lambda name: function(self.ffi.string(name))
        )
        self.lib.fault_hook(hook)
        try:
            yield
        finally:
            self.lib.fault_hook(self.ffi.NULL)

    @property
    def last(self):
        return self.ffi.string(self.lib.fault_last()).decode()

    @property
    def bad_closes(self):
        return self.lib.fault_bad_closes()


@pytest.fixture
def fault(ffi, lib):
    fault = Fault(ffi, lib)
    yield fault
    fault.disarm()


@pytest.fixture
def seccomp(ffi, lib):
    """For tests of the seccomp door, which a sandbox may not allow."""
    refused = ffi.new("const char **")
    if lib.rc_door_probe(refused) < 0:
        pytest.skip(f"no seccomp door here: {ffi.string(refused[0]).decode()}")


@pytest.fixture
def new_engine(ffi, lib):
    """Makes engines, and frees them at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda flags=0: stack.enter_context(Engine(ffi, lib, flags))


@pytest.fixture
def engine(new_engine):
    return new_engine()
