"""The checker of tests/chaos.py: what it must find, and what is no fault."""

from chaoslib.checker import Deeds, wrong


def line(**more):
    return {"began": 10.0, "up": 10.1, "over": 11.0, "port": 5, "sent": 1, "where": None,
            "answers": [[7, 7, 3]], **more}  # fmt: skip


def test_a_good_history():
    assert wrong([line()], Deeds(floors=[(9.0, 3), (10.5, 4)])) == []


def test_what_is_lost():
    lost = line(answers=[], error="end of file", where="answer")
    assert len(wrong([lost], Deeds())) == 1
    assert wrong([lost], Deeds(taken=[(5, 10.5)])) == []
    assert len(wrong([lost], Deeds(taken=[(6, 10.5), (5, 9.0), (5, 13.0)]))) == 1


def test_an_answer_to_somebody_else():
    assert len(wrong([line(answers=[[7, 8, 3]])], Deeds())) == 1


def test_old_and_broken_code():
    assert len(wrong([line()], Deeds(floors=[(9.0, 4)]))) == 1
    assert len(wrong([line()], Deeds(broken={3}))) == 1
