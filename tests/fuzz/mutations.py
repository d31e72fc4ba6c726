"""Damage to valid inputs, byte by byte, as Hypothesis draws it.

Purely random bytes never get past a first check.  A valid object with a few bytes changed
does, and reaches the code behind.
"""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

_STRIKING: Final = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xc0", b"\xc1", b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6),
    b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xc7\x0c\xff" + b"\xff" * 12, b"\xd6\xff\xff\xff\xff\xff", b"\xa4\xff\xfe\xfd\xfc",
    b"-1", b"0", b"99999999999999999999", b"1e999", b"1e-999", b"NaN", b"true", b"null", b'""',
    b"[" * 70, b"{", b"}", b"]", b'"', b"\\ud800", b"\\u0000", b"\n", b",", b":", b"\xef\xbb\xbf",
    b"*a", b"&a ", b"<<: ", b"!!binary ", b"!!set ", b"? ", b"- ", b"2030-01-01",
    b"0x7fffffffffffffff",
)  # fmt: skip
"""Bytes that mean something to a reader: numbers at the edges, lengths that lie, openings."""

_PLACES = st.integers(0, 1 << 20)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with up to six pieces of damage."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(_PLACES) % (len(data) + 1)
        match draw(st.integers(0, 6)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                if at < len(data):
                    data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                data[at:at] = draw(st.sampled_from(_STRIKING))
            case 3:
                piece = draw(st.sampled_from(_STRIKING))
                data[at : at + len(piece)] = piece
            case 4:
                del data[at : at + draw(st.integers(1, 40))]
            case 5:
                start = draw(_PLACES) % (len(data) + 1)
                data[at:at] = data[start : start + draw(st.integers(1, 60))]
            case _:
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(_PLACES) % (len(other) + 1) :]
    return bytes(data)


def inputs(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds, damaged seeds, and now and then anything at all."""
    anything = st.binary(max_size=200).map(lambda data: seeds[0][:1] + data)
    return st.one_of(*[damaged(seeds)] * 5, anything, st.binary(max_size=2_000))
