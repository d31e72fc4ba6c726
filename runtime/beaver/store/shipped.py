"""What the shippers of a store say of themselves, in one small file each beside the log.

A shipper is a process of its own, so it cannot be asked; it writes down how far it has come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from beaver.journal.wal.layout import Layout, is_ship_name
from beaver.ports import Disk
from beaver.structs.views import ShipView

ALIVE_MS: Final = 30_000
"""A shipper that has written nothing for this long does not run."""
_BYTES_MAX: Final = 64 << 10
_SHIPS_MAX: Final = 16


class Shipping(msgspec.Struct, kw_only=True):
    """What one shipper says."""

    target: str
    """Without whatever is secret in it."""
    seq: int = 0
    """The target holds everything up to here."""
    caught_up_ms: int = 0
    """When it held all that there was."""
    at_ms: int = 0
    """When this was written."""
    pid: int = 0
    error: str = ""


_decode: Final = msgspec.json.Decoder(Shipping).decode


def ships(disk: Disk, layout: Layout, last_seq: int, now_ms: int) -> list[ShipView]:
    """Returns what is known of every copy of the log elsewhere."""
    views = []
    for told in _told(disk, layout):
        behind = max(0, last_seq - told.seq)
        views.append(
            ShipView(
                told.target,
                told.seq,
                behind,
                max(0, now_ms - told.caught_up_ms) / 1000 if behind else 0.0,
                now_ms - told.at_ms < ALIVE_MS and told.pid != 0,
                told.error,
            )
        )
    return views


def _told(disk: Disk, layout: Layout) -> Iterator[Shipping]:
    try:
        names = [name for name in disk.listdir(layout.path) if is_ship_name(name)]
    except OSError:
        return
    for name in names[:_SHIPS_MAX]:
        try:
            file = disk.open(f"{layout.path}/{name}")
            try:
                yield _decode(file.pread(_BYTES_MAX, 0))
            finally:
                file.close()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
