"""The pure parts of the benchmark: statistics, recommendation, command line, table, picture."""

import importlib
import itertools
import re
import sys
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recluster.bench import cli, figures, picture, png, svg, table
from recluster.bench.advice import advise
from recluster.bench.identify import packed, proc_name, question
from recluster.bench.plan import QUICK, WHOLE

# ---- statistics ----------------------------------------------------------------------


def test_spread():
    assert figures.spread([5, 5, 5, 5]) == {"counts": [5] * 4, "cv": 0.0, "max_over_mean": 1.0}
    uneven = figures.spread([208, 131, 44, 17])
    assert uneven["max_over_mean"] == 2.08
    assert uneven["cv"] == pytest.approx(0.7525, abs=1e-4)
    assert figures.spread([0, 0])["max_over_mean"] is None


def test_a_worker_without_a_connection_counts():
    assert figures.by_worker({"0": 3, "2": 1, "None": 9}, 4) == [3, 0, 1, 0]


def test_percentile_is_a_value_that_was_measured():
    ordered = list(range(1, 1001))
    assert figures.percentile(ordered, 0.5) == 500
    assert figures.percentile(ordered, 0.99) == 990
    assert figures.percentile(ordered, 0.999) == 999
    assert figures.percentile([7], 0.999) == 7
    assert figures.percentile([], 0.5) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_percentile_covers_its_part(values, part):
    found = figures.percentile(sorted(values), part)
    assert sum(value <= found for value in values) >= part * len(values) - 1e-6
    assert sum(value < found for value in values) < part * len(values)


def test_schedule():
    planned = figures.schedule(731, 20, 0.05)
    assert planned == figures.schedule(731, 20, 0.05), "each policy must get the same"
    times = [at for at, _ in planned]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 20
    assert len(planned) == pytest.approx(731 * 20, rel=0.03)
    assert sum(heavy for _, heavy in planned) / len(planned) == pytest.approx(0.05, abs=0.01)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) < 0.1 / 731 and max(gaps) > 5 / 731, "independent clients do not take turns"


def row(at=0.0, ms=1.0, heavy=False, failure=None, lag_ms=0.0):
    return {"at": at, "ms": ms, "heavy": heavy, "failure": failure, "lag_ms": lag_ms}


def test_tail_is_of_light_requests_that_were_answered():
    rows = [row(ms=2.0)] * 99 + [row(ms=50.0), row(ms=200.0, heavy=True)]
    rows += [row(ms=9999.0, failure="timeout"), row(heavy=True, failure="reset", lag_ms=3.0)]
    found = figures.tail(rows)
    assert found["light_ms"] == {"p50": 2.0, "p99": 2.0, "p99.9": 50.0, "max": 50.0}
    assert (found["light"], found["heavy"]) == (101, 2)
    assert found["failed"] == {"timeout": 1, "reset": 1}
    assert found["lag_ms"]["max"] == 3.0


def test_ideal_queue():
    planned = [(0.0, True), (0.001, False), (0.002, True), (0.003, False), (0.3, False)]
    found = figures.ideal(planned, 2, 1, 200)
    # The fourth waits until the first heavy one is done: 200 - 3 + 1 ms.
    assert found["max"] == pytest.approx(198.0)
    assert found["p50"] == pytest.approx(1.0)
    # What docs/internals/balancing.md says of the schedule: 16 workers are never all busy for long.
    sixteen = figures.ideal(figures.schedule(731, 20, 0.05), 16, 1, 200)
    assert sixteen["p99"] == pytest.approx(1.0, abs=0.1) and sixteen["p99.9"] < 5.0


def test_fault():
    rows = [
        row(at=0.5, ms=400),  # late before the fault: noise
        row(at=0.95, ms=2100),  # in hand when it happened
        row(at=1.1),
        row(at=1.2, ms=1900),
        row(at=1.5, ms=20, failure="reset"),
        row(at=2.0),
        row(at=3.5, ms=150),  # after it was mended: counts, but others served long before
    ]
    found = figures.fault(rows, 1.0, 3.0, 100)
    assert found["late_before"] == 1
    assert found["late"] == 3
    assert (found["failed"], found["failures"]) == ({"reset": 1}, 1)
    assert found["worst_ms"] == 2100
    assert found["others_serve_s"] == 0.5
    assert figures.fault([row(at=2.0)], 1.0, 3.0, 100)["others_serve_s"] == 0.0
    assert figures.fault(rows[:2], 1.0, 3.0, 100)["others_serve_s"] == 0.0


def test_median_of_rounds():
    rounds = [{"a": 1, "b": {"c": 5.0}, "t": "x"}, {"a": 3, "b": None}, {"a": 2, "b": {"c": 9.0}}]
    assert figures.median_of(rounds) == {"a": 2, "b": {"c": 7.0}, "t": "x"}
    assert figures.three([3, None, 1, 2]) == (1, 2, 3)
    assert figures.three([None]) is None


# ---- the recommendation --------------------------------------------------------------


def measured(p99, long=1.1, cpu=100.0, master=0.0, late=0, failed=None):
    return {
        "short": {"max_over_mean": 1.05, "failed": failed or {}},
        "long": long and {"max_over_mean": long, "failed": {}},
        "tail": {"light_ms": {"p99": p99}, "failed": {}},
        "accept": {"workers_us": cpu, "master_us": master},
        "stopped": {"late": late, "others_serve_s": 0.3 if late else 0.0},
    }


def chosen(**rows):
    return advise({policy: {4: row} for policy, row in rows.items()}, 4, 4)


def test_the_tail_comes_first():
    advice = chosen(shared=measured(2.0, long=2.1), reuseport=measured(540.0, long=1.1))
    assert advice.policy == "shared"
    assert "2.0 ms (reuseport: 540.0 ms)" in advice.text


def test_then_the_spread_then_the_cost():
    rows = {
        "shared": measured(2.0, long=2.1, cpu=50),
        "least_connections": measured(2.6, long=1.0, cpu=90),
        "round_robin": measured(2.4, long=1.0, cpu=90, master=30),
        "reuseport": measured(540.0, cpu=50),
    }
    assert chosen(**rows).policy == "least_connections"


def test_auto_is_kept_where_it_is_as_good():
    rows = {"reuseport": measured(5.0), "auto": measured(5.9, cpu=105)}
    assert chosen(**rows).policy == "auto"
    rows["auto"] = measured(500.0)
    assert chosen(**rows).policy == "reuseport"


def test_what_means_something_is_not_recommended():
    assert chosen(source_ip=measured(1.0), reuseport=measured(900.0)).policy == "reuseport"
    assert chosen(weighted=measured(1.0)).policy is None
    assert advise({}, 4, 4).policy is None


def test_a_policy_under_which_requests_fail_is_not_recommended():
    rows = {"shared": measured(1.0, failed={"reset": 3}), "reuseport": measured(900.0)}
    assert chosen(**rows).policy == "reuseport"


def test_two_sentences():
    advice = chosen(auto=measured(2.0, late=7), reuseport=measured(500.0, cpu=80))
    first, second = advice.text.rstrip(".").split(". ")
    assert first.startswith("Use --balance auto: the light requests' p99 is 2.0 ms")
    assert second.startswith("A connection costs 100 us of CPU (reuseport: 80 us)")
    assert "7 requests were late" in second


def test_a_server_of_which_only_the_spread_is_known():
    rows = {
        name: {4: {"short": {"max_over_mean": value}, "long": None}}
        for name, value in (("reuseport", 1.4), ("round_robin", 1.0))
    }
    advice = advise(rows, 4, 4)
    assert advice.policy == "round_robin"
    assert "1.00 times the mean" in advice.text


# ---- the command line ----------------------------------------------------------------


def test_plan_of_the_command_line():
    _, plan, servers = cli.parse(["--workers", "16,4", "--rate", "100", "--rounds", "3"])
    assert plan == replace(WHOLE, workers=(4, 16), rate=100.0, rounds=3)
    assert plan.rate_for(16) == 100.0
    assert [server.name for server in servers] == ["asyncio"]
    assert cli.parse(["--quick"])[1] == QUICK
    assert (WHOLE.rate_for(16), WHOLE.rate_for(4)) == (731.0, 731.0 / 4)


def test_a_server_of_ones_own():
    words = ["--light", "http://localhost:80/a?b=1", "--heavy", "/slow", "-m", "app", "--quick"]
    given, plan, servers = cli.parse(words)
    assert servers[0].words == ("-m", "app", "--quick")
    assert (servers[0].light, servers[0].heavy) == ("/a?b=1", "/slow")
    assert plan == WHOLE and given.json is None and not servers[0].tells
    assert cli.parse(["--", "node", "s.js"])[2][0].words == ("--", "node", "s.js")
    alone = cli.parse(["server.py", "8000"])[2][0]
    assert (alone.words, alone.light, alone.heavy) == (("server.py", "8000"), "/", None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policies", "best"], "'best'"),
        (["--server", "apache"], "'apache'"),
        (["--workers", "0,4"], "'0,4'"),
        (["--workers", "many"], "'many'"),
        (["--rounds", "0"], "'0'"),
        (["--rate", "-1"], "'-1'"),
        (["--light", "a b", "x.py"], "'a b'"),
        (["--heavy", "/slow"], "of your own"),
        (["-m"], "FILE.py"),
    ],
)
def test_bad_usage(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.parse(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("recluster.bench: ") and said in error and error.count("\n") == 1


def test_a_png_needs_matplotlib(monkeypatch, capsys):
    monkeypatch.setattr(png, "possible", lambda: False)
    with pytest.raises(SystemExit):
        cli.parse(["--picture", "x.png"])
    assert "recluster[bench]" in capsys.readouterr().err
    cli.parse(["--picture", "x.svg"])


# ---- telling -------------------------------------------------------------------------


def a_run(policy, turn=0, **more):
    return {"server": "own", "policy": policy, "workers": 4, "round": turn, **more}


def test_table():
    good = {"cv": 0.1, "max_over_mean": 1.25, "failed": {}, "unknown": 0}
    runs = [
        a_run("auto", short=good, tail={"lag_ms": {"p99": 9.5}}),
        a_run("reuseport", short={**good, "failed": {"reset": 2}}),
    ]
    text = "\n".join(table.lines("own", runs, QUICK, ["auto", "reuseport", "shared"]))
    assert re.search(r"^auto +1\.250 +0\.100$", text, re.MULTILINE)
    assert "shared" not in text, "it was not measured"
    assert "auto, 4 workers: the load generator was late itself (p99 9.5 ms)" in text
    assert "reuseport, 4 workers: failed requests (short): 2 reset" in text
    assert "killed" not in text, "a table without a figure"


def test_cells_show_the_noise_of_rounds():
    assert table.cell([1.0], 1) == "1.0"
    assert table.cell([3.0, None, 1.0], 1) == "1.0 / 2.0 / 3.0"
    assert table.cell([None], 1) == "-"


def test_merge_takes_what_was_measured():
    runs = [a_run("auto", short={"cv": 1.0}), a_run("auto", 1, short={"cv": 3.0})]
    runs.append(a_run("shared", trouble="it did not start"))
    merged = cli.merge(runs)
    assert list(merged) == ["auto"]
    assert merged["auto"][4]["short"]["cv"] == 2.0


def test_picture():
    merged = {"auto": {4: measured(2.0)}, "least_connections": {4: measured(1500.0, long=None)}}
    drawn = picture.panels("<own> & co", merged, QUICK)
    assert {panel.title.partition(": ")[2].split(",")[0] for panel in drawn} >= {
        "1000 short connections",
        "light requests under skew",
    }
    text = svg.drawn(drawn, "a <machine>")
    root = xml.etree.ElementTree.fromstring(text)
    said = {one.text for one in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a <machine>", "auto", "least_", "connections", "1500.0", "-"} <= said


def test_scale_of_the_picture():
    assert svg.scaled(5, 10, log=False) == 0.5
    assert svg.scaled(10, 1000, log=True) == pytest.approx(0.5)
    assert svg.scaled(0.01, 1000, log=True) == 0.0
    assert svg.scaled(0, 0, log=True) == 0.0


# ---- asking the kernel ---------------------------------------------------------------


def test_addresses_of_proc():
    if sys.byteorder == "little":
        assert proc_name("0100007F:1F90") == ("127.0.0.1", 8080)
        assert proc_name("00000000000000000000000001000000:0050") == ("::1", 80)
        assert proc_name("0000000000000000FFFF00000100007F:0050") == ("127.0.0.1", 80)


def test_question():
    asked = question(("127.0.0.1", 80), ("127.1.2.3", 4242), 2)
    assert len(asked) == 16 + 56
    assert int.from_bytes(asked[:4], sys.byteorder) == len(asked)
    assert packed("127.1.2.3") in asked and packed("::1")[-1] == 1


# ---- bench/ablation.py ----------------------------------------------------------------------


def test_what_the_ablation_switches_off_is_there(monkeypatch):
    tree = Path(__file__).parent.parent.parent
    monkeypatch.syspath_prepend(str(tree / "bench"))
    edits = importlib.import_module("ablation").EDITS
    for file, old, _ in {edit for one in edits.values() for edit in one}:
        assert (tree / file).read_text().count(old) == 1, f"{file}: {old}"
