"""Build of the engine (one stable-ABI wheel for CPython 3.10+) and of the shim.

RECLUSTER_SANITIZE=1 builds with AddressSanitizer and UBSan (see Makefile).
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

C = sorted(str(path) for path in Path("csrc").glob("*.c"))
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"]
LINK: list[str] = []
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

setup(
    ext_modules=[
        Extension(
            "recluster._engine",
            sources=["src/recluster/_engine.pyx", *C],
            depends=[*HEADERS, "src/recluster/_engine.pxd"],
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
            sources=["csrc/preload/shim.c", "csrc/preload/accept.c"],
            depends=HEADERS,
            include_dirs=["csrc/preload"],
            py_limited_api=STABLE,
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-fvisibility=hidden"],
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE else {},
)
