"""What a line of the log looks like, whatever is in it."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recluster.output import formats

KINDS = [formats.Text(), formats.Colour(), formats.Journal(), formats.Json()]
SLOT = {"slot": 3, "generation": 2, "pid": 41}
WHEN = 1_764_383_294.9996


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC0", "2025-11-29 02:28:14.999+00:00"),
        ("IST-5:30", "2025-11-29 07:58:14.999+05:30"),
        ("NST3:30", "2025-11-28 22:58:14.999-03:30"),
    ],
)
def test_a_stamp_says_how_far_it_is_from_utc(zone, shown, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert formats.stamp(WHEN) == shown
        assert formats.stamp(WHEN, "T") == shown.replace(" ", "T")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("kind", KINDS)
@given(line=st.binary().filter(lambda line: b"\n" not in line), ends=st.booleans())
def test_a_workers_line_stays_one_and_keeps_what_it_says(kind, line, ends):
    made = kind.output(line, SLOT, ends, WHEN)
    assert b"\n" not in made
    if isinstance(kind, formats.Json):
        assert made.isascii()
        told = json.loads(made)
        assert told["slot"] == 3 and told.get("partial", False) is not ends
        assert told["message"] == line.decode(errors="backslashreplace")
    else:
        assert line in made and b"[3]" in made


@given(text=st.text().filter(lambda text: "\n" not in text))
def test_json_is_ascii_and_reads_as_what_was_said(text):
    made = formats.Json().line(formats.ERROR, text, {"event": "exit", **SLOT}, WHEN)
    assert made.isascii() and "\n" not in made
    told = json.loads(made)
    assert (told["message"], told["level"], told["event"]) == (text, "error", "exit")
    assert {**told, **SLOT} == told


def test_a_short_line_names_a_level_where_something_is_wrong(monkeypatch):
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    short = formats.Text(short=True)
    assert short.line(formats.INFO, "x", {}, WHEN) == "02:28:14 recluster: x"
    assert short.line(formats.ERROR, "x", {}, WHEN) == "02:28:14 ERROR recluster: x"


def test_priorities_are_those_of_syslog():
    found = [formats.Journal().line(level, "x", {}, WHEN) for level in formats.NAMES]
    assert [line[:3] for line in found] == ["<7>", "<6>", "<4>", "<3>"]


def test_colours_of_slots_differ_and_end():
    lines = [
        formats.Colour().output(b"x", {**SLOT, "slot": slot}, True, WHEN) for slot in range(10)
    ]
    assert len({line.partition(b"[")[2][:3] for line in lines}) == 10
    left_on = formats.Colour().output(b"\x1b[31mred", SLOT, True, WHEN)
    assert left_on.endswith(b"\x1b[0m")
    bare = re.sub(rb"\x1b\[[0-9;]*m", b"", left_on)
    assert bare == b"[3] red"


@pytest.mark.parametrize(
    ("wanted", "journal", "terminal", "kind"),
    [
        ("auto", False, False, formats.Text),
        ("auto", False, True, formats.Colour),
        ("auto", True, False, formats.Journal),
        ("text", True, True, formats.Text),
        ("short", False, False, formats.Text),
        ("short", True, True, formats.Colour),
        ("json", True, True, formats.Json),
        ("journal", False, False, formats.Journal),
    ],
)
def test_auto_is_what_fits(wanted, journal, terminal, kind):
    assert type(formats.choose(wanted, journal=journal, terminal=terminal)) is kind


def test_the_journal_is_one_file():
    told = {"JOURNAL_STREAM": "8:4711"}
    assert formats.is_journal(8, 4711, told)
    assert not formats.is_journal(8, 4712, told)
    assert not formats.is_journal(8, 4711, {})
