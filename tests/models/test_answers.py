"""What a server has answered to the question whether it is ready."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recluster.master.answers import LIMIT, judged
from recluster.options.checks import ready_url

OK = b"HTTP/1.1 200 OK\r\n"
NO = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 22\r\n\r\nno database\nand so on\n"
CHUNKED = b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhy?\n\r\n0\r\n\r\n"
WHOLE = b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nwhy"


@pytest.mark.parametrize(
    ("data", "ended", "known", "refusal"),
    [
        (b"", False, False, "nothing"),
        (b"", True, True, "nothing"),
        (OK, False, True, None),
        (b"HTTP/1.0 302 Found\r\n", False, True, None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, False, True, None),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False, False, "nothing"),
        (NO, False, True, "503 Service Unavailable: no database"),
        (CHUNKED, False, True, "500 Oh: why?"),
        (WHOLE, False, True, "503 No: why"),
        (WHOLE[:-1], False, False, "503 No: wh"),
        (b"HTTP/1.1 404 \r\n\r\n", True, True, "404"),
        (b"HTTP/1.1 404\r\n\r\n\r\n \r\n", True, True, "404"),
        (b"SSH-2.0-OpenSSH\r\n", False, True, "no HTTP: SSH-2.0-OpenSSH"),
        (b"\x15\x03\x01", True, True, "no HTTP"),
        (b"HTTP/1.1 503 A\r\n\r\nx\x1b[31m\n", False, True, "503 A: x?[31m"),
        (b"HTTP/1.1 503 A\r\n" + b"x" * LIMIT, False, True, "503 A"),
    ],
)
def test_judged(data, ended, known, refusal):
    assert judged(data, ended) == (known, refusal)


@given(st.sampled_from([OK + b"\r\n", NO, CHUNKED, WHOLE, b"no\n"]), st.integers(0, 99))
def test_what_is_known_does_not_change(data, cut):
    """However it comes in parts."""
    known, refusal = judged(data[:cut], False)
    assert not known or (refusal is None) == (judged(data, True)[1] is None)


@given(st.binary(max_size=200), st.booleans())
def test_anything_may_be_said(data, ended):
    known, refusal = judged(data, ended)
    assert known or not ended
    assert refusal is None or refusal.isprintable()


@pytest.mark.parametrize(
    ("text", "tls", "host", "path"),
    [
        ("/healthz", False, "localhost", "/healthz"),
        ("https:/healthz?full=1", True, "localhost", "/healthz?full=1"),
        ("http://example.org:80/", False, "example.org:80", "/"),
    ],
)
def test_urls(text, tls, host, path):
    url = ready_url(text)
    assert (url.tls, url.host, url.path, str(url)) == (tls, host, path, text)
    assert url.request.startswith(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n".encode())


@pytest.mark.parametrize("text", ["", "healthz", "ftp:/x", "/a b", "/a\r\nX: y", "//host/x", 5])
def test_no_urls(text):
    with pytest.raises(ValueError, match="must be /PATH"):
        ready_url(text)
