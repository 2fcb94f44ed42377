"""Arrows between the packages of src/recluster point downwards, as ARCHITECTURE.md has them.

Every import counts, those within functions too: they defer it, and need it all the same. So do
those for type checkers only: whose names one has to know, of him one knows.
"""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "recluster"
ROWS = re.findall(r"^\| (`[\w`/, ]+`) \| .* \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
LEVELS = [re.findall(r"`(\w+)/?`", row) for row in reversed(ROWS)]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
ITSELF = "recluster"  # `__init__` has the version, and imports on demand: below all
DEFINES = ("events", "options", "options/fields")
PURE = {"__future__", "collections", "dataclasses", "enum", "math", "typing"}


def files():
    return [path for path in sorted(SOURCE.rglob("*.py")) if "apps" not in path.parts]


def module_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in files()} | {"recluster._engine": None}


def room(module):
    """The package, or the module at the top, in which it is."""
    return module.split(".")[1] if "." in module else ITSELF


def imports(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def targets(node, module, is_package):
    """The modules of ours that a statement needs."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        return [name for name in names if name.partition(".")[0] == ITSELF]
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
        base = ".".join([*kept, base] if base else kept)
    if base.partition(".")[0] != ITSELF:
        return []
    full = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else base for name in full]


def arrows():
    for module, path in MODULES.items():
        if path is not None and module != ITSELF:  # which names for checkers what it has on demand
            tree = ast.parse(path.read_text())
            for node in imports(tree):
                for target in targets(node, module, path.name == "__init__.py"):
                    assert target in MODULES, f"{module} imports {target}, which is not there"
                    yield module, target


ARROWS = sorted(set(arrows()))
UPWARD = {
    (module, room(target))
    for module, target in ARROWS
    if room(module) != room(target) and LEVEL.get(room(target), -1) >= LEVEL.get(room(module), -1)
}


def test_the_table_has_every_package():
    assert set(LEVEL) == {room(module) for module in MODULES} - {ITSELF}
    assert len(LEVEL) == sum(map(len, LEVELS))


def test_the_arrows_are_seen():
    """By this file: a test that reads nothing passes."""
    rooms = {(room(one), room(other)) for one, other in ARROWS}
    assert len(ARROWS) > 400 and len(rooms) > 60
    assert ("recluster.verbs.entry", "recluster.verbs.cli") in ARROWS  # within a function
    assert ("recluster.metrics.exporter", "recluster.metrics.master") in ARROWS


def test_no_arrow_goes_up():
    assert sorted(UPWARD) == []


def test_no_cycle_between_packages():
    needs = {}
    for module, target in ARROWS:
        if room(module) != room(target):
            needs.setdefault(room(module), set()).add(room(target))
    assert list(TopologicalSorter(needs).static_order())  # raises CycleError, which names them


def test_a_package_imports_nothing_by_itself():
    """So that who needs one module of it loads that one; but those that define what all have."""
    for path in SOURCE.rglob("__init__.py"):
        name = str(path.parent.relative_to(SOURCE))
        if name not in (".", *DEFINES):
            assert list(imports(ast.parse(path.read_text()))) == [], name


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_a_package_says_what_it_owns(name):
    path = SOURCE / name / "__init__.py"
    if path.exists():
        said = ast.get_docstring(ast.parse(path.read_text()))
        assert 3 <= len(said.splitlines()) <= 15 and "import" in said.lower()


def test_the_population_is_pure():
    """No clock, no system, no engine."""
    for path in (SOURCE / "population").glob("*.py"):
        for node in imports(ast.parse(path.read_text())):
            if isinstance(node, ast.Import) or not node.level:
                names = [alias.name for alias in node.names]
                names = names if isinstance(node, ast.Import) else [node.module]
                assert {name.partition(".")[0] for name in names} <= PURE, path.name
    rooms = {room(target) for module, target in ARROWS if room(module) == "population"}
    assert rooms <= {"population", "options", "events", "base"}


# ---- what is private ---------------------------------------------------------------------

TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items() if path}


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def private(tree):
    """The private names that a module defines, of its own or of its objects."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = node.name
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            name = node.id if isinstance(node, ast.Name) else node.attr
        else:
            continue
        if is_private(name):
            yield name


PRIVATE = {module: set(private(tree)) for module, tree in TREES.items()}
OURS = set().union(*PRIVATE.values())


def reached(tree, known):
    """Private names of ours, of an object that is not `self`, that are not this module's."""
    theirs = [node.names[0].name for node in imports(tree) if isinstance(node, ast.Import)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in OURS - known:
            continue
        if ast.unparse(node.value) not in ("self", "cls", "super()", *theirs):
            yield ast.unparse(node)


def test_what_is_private_is_seen():
    calls = (
        "import os; os._exit(0)",
        "self._core.go()",
        "self._core._turn()",
        "cluster._core.go()",
    )
    found = reached(ast.parse("; ".join(calls)), set())
    assert sorted(found) == ["cluster._core", "self._core._turn"]
    assert "_core" in PRIVATE["recluster.master.wishes"] and len(OURS) > 500


@pytest.mark.parametrize("module", sorted(TREES))
def test_nobody_reaches_into_what_is_private(module):
    assert list(reached(TREES[module], PRIVATE[module])) == []
    for node in imports(TREES[module]):
        if isinstance(node, ast.ImportFrom) and targets(node, module, False):
            assert not any(is_private(one.name) for one in node.names if one.name != "_engine")
