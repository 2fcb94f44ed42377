"""Where --preload cannot be, it is said, and there is no nursery."""

import types

from recluster import _engine
from recluster.mold.nursery import nursery_for
from recluster.options import Options


def test_why_not_is_said():
    said = []
    story = types.SimpleNamespace(warn=said.append, line=said.append)
    options = Options.make({"preload": "json"}, {})
    how = {"subreaper": True, "door": _engine.NOTIFY, "terminal": True}
    assert nursery_for(None, None, options, None, {}, story, **how) is None
    (line,) = said
    assert "terminal" in line and line.endswith("workers import for themselves")


def test_without_the_option_nothing_is_said():
    options = Options.make({}, {})
    how = {"subreaper": True, "door": _engine.PRELOAD, "terminal": True}
    assert nursery_for(None, None, options, None, {}, None, **how) is None
