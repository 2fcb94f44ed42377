"""Compile the programs here and print balance.h: `make bpf`.

The same clang gives the same bytes. The header is committed, so that neither
clang nor libbpf is needed to install; tests/units/bpf/test_bpf_header.py compares.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = (HERE / "balance.bpf.c", HERE / "flows.bpf.c")
HEADER = HERE / "balance.h"
FLAGS = "-mcpu=v3 -O2 -ffreestanding -fno-jump-tables -Wall -Wextra -Werror"
LOAD_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, the one instruction of 16 bytes
R_BPF_64_64, SHT_REL = 1, 9


def clang() -> str:
    return os.environ.get("CLANG", "clang")


def version() -> str:
    """The first line of what clang says of itself."""
    said = subprocess.run([clang(), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0].strip()


def compiled(source: Path) -> bytes:
    """The ELF object; asm/types.h of <linux/bpf.h> lies with the machine's headers."""
    machine = f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "balance.o"
        command = [
            clang(),
            "-target",
            "bpf",
            *FLAGS.split(),
            "-idirafter",
            machine,
            "-c",
            source.name,
            "-o",
            str(out),
        ]
        subprocess.run(command, check=True, cwd=HERE)
        return out.read_bytes()


def text(elf: bytes, start: int) -> str:
    return elf[start : elf.index(b"\0", start)].decode()


def programs(elf: bytes) -> dict[str, tuple[bytes, list[tuple[int, str]]]]:
    """Section "program/NAME" -> (instructions, [(offset, symbol)])."""
    assert elf[:6] == b"\x7fELF\x02\x01", "not a little-endian 64-bit object"
    table, size, count, names = struct.unpack_from("<Q10xHHH", elf, 40)
    heads = [struct.unpack_from("<IIQQQQIIQQ", elf, table + size * at) for at in range(count)]
    title = [text(elf, heads[names][4] + head[0]) for head in heads]
    symbols = heads[title.index(".symtab")]
    found: dict[str, tuple[bytes, list[tuple[int, str]]]] = {}
    for name, head in zip(title, heads, strict=True):
        if name.startswith("program/"):
            found[name.removeprefix("program/")] = (elf[head[4] : head[4] + head[5]], [])
    for head in heads:
        if head[1] != SHT_REL or not title[head[7]].startswith("program/"):
            continue
        marks = found[title[head[7]].removeprefix("program/")][1]
        for at in range(head[4], head[4] + head[5], 16):
            offset, info = struct.unpack_from("<QQ", elf, at)
            assert info & 0xFFFFFFFF == R_BPF_64_64, "a relocation that is no map"
            symbol = struct.unpack_from("<I", elf, symbols[4] + 24 * (info >> 32))[0]
            marks.append((offset // 8, text(elf, heads[symbols[6]][4] + symbol)))
    return found


def body(name: str, code: bytes, marks: list[tuple[int, str]]) -> list[str]:
    maps = dict(marks)
    lines = [f"static const struct bpf_insn rc_{name}_text[] = {{"]
    for at in range(len(code) // 8):
        operation, registers, offset, value = struct.unpack_from("<BBhi", code, at * 8)
        if at in maps:  # what is added to the map's address stands in the second half
            assert operation == LOAD_64 and registers >> 4 == 0
            addend, value = value, 0
            assert struct.unpack_from("<i", code, at * 8 + 12)[0] in (0, -1 if addend < 0 else 0)
        elif at - 1 in maps:
            value = addend
        words = (f"0x{operation:02x}", registers & 15, registers >> 4, offset, value)
        lines.append(f"    {{{', '.join(map(str, words))}}},")
    lines += ["};", f"static const struct rc_bpf_mark rc_{name}_marks[] = {{"]
    lines += [f"    {{{at}, {symbol.upper()}}}," for at, symbol in marks]
    return [*lines, "};"]


def header() -> str:
    lines = [
        "/* balance.h - balance.bpf.c and flows.bpf.c, compiled. Made by `make bpf`; do not edit.",
        f" * {version()}",
        " */",
        "/* clang-format off */",
    ]
    for source in SOURCES:
        for name, (code, marks) in programs(compiled(source)).items():
            lines += body(name, code, marks)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        HEADER.write_text(header())
    else:
        sys.stdout.write(header())
