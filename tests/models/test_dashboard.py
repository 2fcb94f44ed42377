"""examples/grafana.json asks for metrics that there are, by labels that they have."""

import json
import re
from pathlib import Path

import pytest

from recluster.metrics.measures import FAMILIES

DASHBOARD = json.loads((Path(__file__).parents[2] / "examples" / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES += [one["expr"] for one in DASHBOARD["annotations"]["list"]]
OURS = ("job", "instance", "le")  # Prometheus' own


def known():
    for one in FAMILIES:
        labels = {label.strip() for label in one.labels.split(",") if label.strip()}
        for end in ("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",):
            yield one.sample + end, labels | set(OURS)


@pytest.mark.parametrize("query", QUERIES)
def test_queries(query):
    families = dict(known())
    names = re.findall(r"recluster_\w+", query)
    assert names and set(names) <= set(families), query
    labels = re.findall(r"[{,](\w+)[=!]", query)
    for group in re.findall(r"by \(([^)]*)\)", query):
        labels += [label.strip() for label in group.split(",")]
    assert all(set(labels) <= families[name] for name in names), query
    assert query.count("(") == query.count(")") and query.count("{") == query.count("}")


def test_panels_do_not_overlap_and_each_counter_is_a_rate():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for query in QUERIES:
        for name in re.findall(r"(recluster_\w+_total)\{[^}]*\}", query):
            assert re.search(rf"(rate|increase)\({name}", query), query
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
