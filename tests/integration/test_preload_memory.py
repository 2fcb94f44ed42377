"""--preload: what workers copy of the memory that they share with their mold."""

import sys

import pytest
from harness import Running
from preloadcase import FAST

# A name of each page is looked up on a class that has it not: that is noted, too. Of many classes,
# because an entry's number comes from the class and the name's address.
NAMES = """
CLASSES = [type("Any", (), {}) for _ in range(64)]
STEP, ENTRIES = 40, 4096

def look_up(names):
    for at, name in enumerate(names):
        hasattr(CLASSES[at % len(CLASSES)], name)

names = [f"a name that is long enough to fill a page soon: {at}" for at in range(STEP * ENTRIES)]
look_up(names[::STEP])
"""
SERVER = """
import resource, threading
import names
import recluster.worker as worker

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

ours = [f"of the worker: {at}" for at in range(4 * names.ENTRIES)]
before = faults()
names.look_up(ours)
worker.send(faults() - before)
worker.ready()
threading.Event().wait()
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="names are immortal there")
def test_looking_up_attributes_does_not_touch_the_molds_names(apps):
    """Each entry of the interpreter's cache holds a reference: to replace it is a write."""
    (apps / "names.py").write_text(NAMES)
    (apps / "server.py").write_text(SERVER)
    options = ("--workers", 2, *FAST, "--preload", "names", "--ready-when", "ready")
    with Running(*options, "server.py", cwd=apps) as cluster:
        told = cluster.wait_each("message", 2, where=lambda e: isinstance(e["message"], int))
        counts = [event["message"] for event in told.values()]
        assert max(counts) < 500, counts
        assert cluster.end() == 0


MAPPINGS = """
import collections.abc

CLASSES = [type(f"Any{at}", (collections.abc.Mapping,), {}) for at in range(COUNT)]
"""
ASKING = """
import collections.abc, os, resource, threading
import mappings
import recluster.worker as worker

os.environ.update(A="1")
isinstance([], collections.abc.Mapping)
worker.send(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)  # since it was born
worker.ready()
threading.Event().wait()
"""


def test_asking_what_an_object_is_does_not_touch_all_classes(apps):
    """The first isinstance() of an abstract class writes into each of its subclasses."""
    (apps / "server.py").write_text(ASKING)
    faults = []
    for count in (10, 1000):
        (apps / "mappings.py").write_text(MAPPINGS.replace("COUNT", str(count)))
        options = ("--workers", 1, *FAST, "--preload", "mappings", "--ready-when", "ready")
        with Running(*options, "server.py", cwd=apps) as cluster:
            faults.append(cluster.wait_for("message")["message"])
            assert cluster.end() == 0
    few, many = faults
    assert many - few < 200, faults
