"""Build of the engine (one stable-ABI wheel for CPython 3.10+) and of the shim.

RECLUSTER_SANITIZE=1 builds with AddressSanitizer and UBSan (see Makefile).
"""

import os
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# preload/ is a library of its own, and what is in bpf/ was compiled for the kernel.
ALONE = ("preload", "bpf")
C = sorted(str(path) for path in Path("csrc").glob("*/*.c") if path.parent.name not in ALONE)
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"]
# Bound when it is loaded: a guard calls, and has given back what the linker would look into.
LINK = ["-Wl,-z,now"]
if os.environ.get("RECLUSTER_SANITIZE"):
    FLAGS += [
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-omit-frame-pointer",
        "-fno-sanitize-recover=undefined",
    ]
    LINK += ["-fsanitize=address,undefined"]

# A free-threaded interpreter has no stable ABI.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildExt(build_ext):
    """The C files of an extension with all cores; whether it is up to date is seen as ever."""

    def build_extensions(self) -> None:
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda one: compile_some([one], *args, **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            "recluster._engine",
            sources=["src/recluster/_engine.pyx", *C],
            depends=[*HEADERS, "src/recluster/_engine.pxd", "src/recluster/_engine_free.pxi"],
            include_dirs=["csrc"],
            define_macros=[("Py_LIMITED_API", "0x030A0000")] if STABLE else [],
            py_limited_api=STABLE,
            extra_compile_args=FLAGS,
            extra_link_args=LINK,
        ),
        # No module: a library for LD_PRELOAD, found beside the engine. It goes
        # into foreign processes, so it is never built with the sanitizers.
        Extension(
            "recluster._shim",
            sources=sorted(str(path) for path in Path("csrc/preload").glob("*.c")),
            depends=HEADERS,
            include_dirs=["csrc/preload"],
            py_limited_api=STABLE,
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-fvisibility=hidden"],
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE else {},
)
