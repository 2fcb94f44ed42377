"""The folders of csrc stand in an order, and what is lower knows nothing of what is higher.

csrc/README.md has the order. Neither an include nor a call goes up: who is above, and must
hear of something, gives a table (base/parts.h). Read from the sources, not from objects: so
it runs where nothing was compiled.
"""

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
TEXT = (CSRC / "README.md").read_text()
LEVELS = re.findall(r"^\| \[(\w+)\]\(\w+/README\.md\) \|", TEXT, re.M)  # the lowest first
ALONE = ("preload", "bpf")  # what they compile is no part of the engine
SHARED = "internal.h"  # a worker and the engine: everybody's, so no arrow to it says anything


def bare(text: str) -> str:
    """Without comments and strings."""
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.S)


def folder(name: str) -> str:
    return name.rpartition("/")[0]


FILES = {
    path.relative_to(CSRC).as_posix(): path.read_text() for path in sorted(CSRC.rglob("*.[ch]"))
}
ENGINE = [name for name in FILES if folder(name) not in ALONE]


def included(name: str) -> list[str]:
    """The files that it includes; the folders that stand alone name their own without a folder."""
    found = []
    for wanted in re.findall(r'^\s*#\s*include "(.+)"', FILES[name], re.M):
        beside = f"{folder(name)}/{wanted}"
        found.append(beside if beside in FILES else wanted)
    return found


def goes_up(name: str, other: str) -> bool:
    return LEVELS.index(folder(other)) > LEVELS.index(folder(name))


DEFINED = re.compile(r"^(?!static\b|typedef\b)\w[\w *]*?\b(rc_\w+)\([^;{}]*\)\s*\{", re.M)
DECLARED = re.compile(r"^(?!static\b|typedef\b|#)\w[\w *]*?\b(rc_\w+)\([^;{}]*\);", re.M)


def definitions() -> dict[str, str]:
    """Function -> the file that defines it."""
    return {
        function: name
        for name in ENGINE
        if name.endswith(".c")
        for function in DEFINED.findall(bare(FILES[name]))
    }


def test_each_folder_has_its_level():
    there = {folder(name) for name in FILES} - {""}
    assert sorted(LEVELS) == sorted(there), "csrc/README.md has the folders, the lowest first"


def test_every_include_names_a_file_that_is_there():
    missing = [(name, other) for name in FILES for other in included(name) if other not in FILES]
    assert not missing


def test_no_include_goes_up():
    """One level to a folder: where no arrow goes up there is no cycle between them either."""
    wrong = [
        f"{name} includes {other}"
        for name in FILES
        for other in included(name)
        if folder(name) and folder(other) and goes_up(name, other)
    ]
    assert not wrong


def test_what_stands_above_all_folders_is_two_headers():
    assert [name for name in FILES if not folder(name)] == [SHARED, "recluster.h"]
    assert not included("recluster.h")


def test_no_header_includes_itself_by_way_of_others():
    """Which also keeps those that internal.h includes from leaning on it."""

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in included(name):
                walk(other, (*way, name))
            done.add(name)

    done: set[str] = set()
    for name in FILES:
        walk(name, ())


def test_all_functions_are_seen():
    """What the next test finds is worth what these expressions find."""
    defined = definitions()
    declared = {
        one for name in ENGINE if name.endswith(".h") for one in DECLARED.findall(bare(FILES[name]))
    }
    assert len(declared) > 400
    assert declared - set(defined) == set()


def test_calls_go_down():
    defined = definitions()
    up: dict[str, set[str]] = {}
    for name in ENGINE:
        for word in set(re.findall(r"\brc_\w+", bare(FILES[name]))) if name.endswith(".c") else ():
            if word in defined and goes_up(name, defined[word]):
                up.setdefault(name, set()).add(word)
    assert not up


@pytest.mark.parametrize("name", LEVELS)
def test_a_folder_says_what_is_in_it(name):
    text = (CSRC / name / "README.md").read_text()
    assert 10 <= len(text.splitlines()) <= 30
    named = set(re.findall(r"^- `([\w.]+\.(?:[ch]|py))`", text, re.M))
    there = {path.name for path in (CSRC / name).iterdir() if path.suffix in (".c", ".h", ".py")}
    assert named == there
