"""The local socket's frames: any bytes, in any pieces."""

from __future__ import annotations

import pytest

from beaver import protocol


def test_a_frame_of_exactly_the_limit_is_read_and_not_one_byte_more() -> None:
    reader = protocol.FrameReader(limit=1_000)
    body = bytes(1_000)
    assert list(reader.feed(len(body).to_bytes(4, "little") + body)) == [body]
    with pytest.raises(protocol.FrameTooLong):
        list(reader.feed((1_001).to_bytes(4, "little")))
