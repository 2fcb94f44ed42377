"""A master with --metrics, and scrapes of it: as text, and as the values of its samples."""

import http.client
import re
import socket

from ctlcase import FAST
from harness import GENEROUS, Running
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as older


def started(*words, cwd, workers=2, metrics="127.0.0.1:0", **more):
    options = (*FAST, "--workers", workers, "--metrics", metrics)
    return Running(*options, *words, cwd=cwd, **more)


def address_of(running):
    """Where its metrics are, as (host, port)."""
    host, _, port = running.status()["metrics"].rpartition(":")
    return host.strip("[]"), int(port)


def fetch(running, path="/metrics", method="GET", **headers):
    """(status, headers, text)."""
    connection = http.client.HTTPConnection(*address_of(running), timeout=GENEROUS)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def parsed(text):
    """{(sample, ((label, value), ...)): value}, by the parser of prometheus_client. What
    older parsers make of it is the same."""
    found = {}
    for family in openmetrics(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    for family in older(text):
        for sample in family.samples:
            assert found[sample.name, tuple(sorted(sample.labels.items()))] == sample.value
    return found


class Values:
    """`values("workers", state="serving")`; None: there is no such sample."""

    def __init__(self, found):
        self.found = found

    def __call__(self, name, **labels):
        key = f"recluster_{name}", tuple(sorted((k, str(v)) for k, v in labels.items()))
        return self.found.get(key)

    def by(self, name, label):
        """{label's value: value} of the samples that have this label alone."""
        return {
            key[1][0][1]: value
            for key, value in self.found.items()
            if key[0] == f"recluster_{name}" and [one for one, _ in key[1]] == [label]
        }

    @property
    def names(self):
        return {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in self.found}


def scrape(running):
    status, headers, text = fetch(running)
    assert status == 200 and headers["Content-Type"].startswith("application/openmetrics-text")
    return Values(parsed(text))


def connect(running):
    connection = socket.create_connection(address_of(running), GENEROUS)
    connection.settimeout(GENEROUS)
    return connection


def everything(connection):
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data
