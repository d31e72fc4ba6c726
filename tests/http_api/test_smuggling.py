"""Requests that two readers may read differently: none hidden in another is carried out."""

from __future__ import annotations

import pytest

from tests.http_api.attacks import Heard, Target


def smuggled(target: Target) -> bytes:
    """A request that would show itself by an event in the log."""
    return target.head("Content-Length: 0", method="POST", path="/v1/snapshot")


AMBIGUOUS = {
    "CL and TE": ("Content-Length: 5", "Transfer-Encoding: chunked"),
    "TE and CL": ("Transfer-Encoding: chunked", "Content-Length: 5"),
    "two CL": ("Content-Length: 5", "Content-Length: 6"),
    "two equal CL": ("Content-Length: 5", "Content-Length: 5"),
    "a list of CL": ("Content-Length: 5, 5",),
    "CL with a sign": ("Content-Length: +5",),
    "CL below zero": ("Content-Length: -5",),
    "CL in hex": ("Content-Length: 0x5",),
    "CL with underscores": ("Content-Length: 0_5",),
    "CL of no digits": ("Content-Length: five",),
    "CL beyond 2^64": ("Content-Length: 18446744073709551621",),
    "CL in foreign digits": ("Content-Length: \xb5",),
    "two TE": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "TE chunked twice": ("Transfer-Encoding: chunked, chunked",),
    "TE unknown": ("Transfer-Encoding: xchunked",),
    "TE identity behind chunked": ("Transfer-Encoding: chunked, identity",),
    "TE with a space before the colon": ("Transfer-Encoding : chunked",),
    "CL with a space before the colon": ("Content-Length : 5",),
    "obs-fold in TE": ("Transfer-Encoding:\r\n chunked",),
    "obs-fold in CL": ("Content-Length:\r\n\t5",),
    "obs-fold behind CL": ("Content-Length: 5\r\n 6",),
    "a header without a name": (": 5", "Content-Length: 0"),
    "NUL in a header": ("Content-Length: 5\0",),
    "a bare CR in a header": ("X: a\rContent-Length: 5",),
    "a vertical tab before TE": ("\x0bTransfer-Encoding: chunked",),
    "a space before TE": (" Transfer-Encoding: chunked",),
}


def expect_nothing_smuggled(target: Target, heard: Heard) -> None:
    assert heard.statuses == [400], heard
    assert heard.closed, "nothing behind it may be taken for a request"


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_smuggling_by_a_body_of_two_lengths(target: Target, name: str) -> None:
    """One answer, 400, and no more on that connection: a proxy may see another end of the body."""
    head = target.head(*AMBIGUOUS[name], method="POST", path="/v1/snapshot")
    expect_nothing_smuggled(target, target.send(head + b"0\r\n\r\n" + smuggled(target)))


@pytest.mark.parametrize(
    "chunk",
    [
        b"0x2\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n", b" 2\r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n", b"2\r\n{}0\r\n\r\n",
        b"2\r{}\r0\r\r", b"\r\n2\r\n{}\r\n0\r\n\r\n", b"g\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffff2\r\n{}\r\n0\r\n\r\n", b"2;a\nb\r\n{}\r\n0\r\n\r\n",
        b"2_0\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\nX : y\r\n\r\n",
    ],
)  # fmt: skip
def test_smuggling_by_chunks_that_two_may_read_differently(target: Target, chunk: bytes) -> None:
    head = target.head("Transfer-Encoding: chunked", method="POST", path="/v1/snapshot")
    heard = target.send(head + chunk + smuggled(target))
    assert len(heard.statuses) == 1, heard
    assert heard.statuses[0] in (400, 408), heard
    assert heard.closed


def test_smuggling_by_bare_line_feeds(target: Target) -> None:
    """A line that ends without a carriage return is refused, and nothing behind it is read."""
    for raw in (
        target.head().replace(b"\r\n", b"\n"),
        target.head("X: a\nY: b"),
        target.head("X: a").replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
        target.head()[:-2] + b"\n",
    ):
        expect_nothing_smuggled(target, target.send(raw + smuggled(target)))


def test_a_body_in_proper_chunks_is_taken(target: Target) -> None:
    """Else the tests above could not fail."""
    head = target.head("Transfer-Encoding: chunked", method="POST", path="/v1/snapshot")
    heard = target.send(head + b"2\r\n{}\r\n0\r\n\r\n" + smuggled(target), answers=2)
    assert heard.statuses == [200, 200]


def test_the_rest_of_a_body_that_was_refused_is_no_request(target: Target) -> None:
    """A refusal may come before the body does: what follows is still that body, or the end."""
    inner = smuggled(target)
    length = f"Content-Length: {len(inner)}"
    for path in ("/v1/nothing", "/v1/jobs/none/cancel", "/healthz"):
        heard = target.send(target.head(length, method="POST", path=path) + inner)
        assert len(heard.statuses) == 1, (path, heard)
    nobody = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode()
    assert target.send(nobody + inner).statuses == [401]
