"""`beaver compact`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from beaver.cli import flags, output
from beaver.errors import NoServer, StoreUnavailable
from beaver.text.durations import format_size
from beaver.text.foreign import counted

if TYPE_CHECKING:
    from beaver.config.layers import Config

_TOKEN_BYTES_MAX: Final = 4096
_ANSWER_S: Final = 600.0


class Compacted(msgspec.Struct):
    """What compacting has come to."""

    data: str
    seq: int
    """The snapshot holds everything up to here."""
    archive_bytes_before: int
    archive_bytes: int
    first_seq: int
    """Events before it are no longer kept."""


def compact_command(
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Take a snapshot now, and prune what the retention no longer keeps.

    A server does both by itself; this is for who wants the space or a short recovery at once. It
    works through the server, or without one, by retention_age and retention_size as they are set.

    Examples:
      beaver compact
      BEAVER_RETENTION_AGE=1d beaver compact --data /srv/queue
    """
    from beaver.cli.store import connect
    from beaver.journal.wal.layout import Layout
    from beaver.store.holding import Holding
    from beaver.system.disk import SystemDisk

    settings = flags.configuration(data, config)
    holding = Holding(SystemDisk(), Layout(settings.data))
    before = holding.look().archive_bytes
    with connect(settings.data) as client:
        running = client.status().running
    seq = _by_the_server(settings.data) if running else _alone(settings)
    after = holding.look()
    made = Compacted(settings.data, seq, before, after.archive_bytes, after.first_seq)
    if as_json:
        output.json_line(made)
        return
    output.line(
        f"snapshot up to seq {made.seq}; archive {format_size(before)}, now "
        f"{format_size(after.archive_bytes)} in {counted(after.archive_segments, 'segment')}, from "
        f"seq {after.first_seq} on"
    )


def _alone(settings: Config) -> int:
    """Compacts a store that nobody else holds."""
    from beaver.helper.work import project, snapshot_and_prune
    from beaver.journal.wal.layout import Layout
    from beaver.store.recovery import open_store
    from beaver.system.clock import SystemClock
    from beaver.system.disk import SystemDisk

    disk, clock, layout = SystemDisk(), SystemClock(), Layout(settings.data)
    opened = open_store(disk, settings.data, clock=clock, create=False)
    journal, seq = opened.journal, opened.state.last_seq
    try:
        project(disk, layout, seq)
        snapshot_and_prune(
            disk, layout, seq, settings.retention_bytes, settings.retention_ms, clock
        )
        journal.close()
    finally:
        journal.abandon()
    return seq


def _by_the_server(data: str) -> int:
    """Asks the server that runs, by its HTTP and the token of the store's owner."""
    from beaver.access.tokens import ADMIN_NAME
    from beaver.system.regular import read_regular
    from beaver.transport import endpoint

    info = endpoint.read(data)
    if info is None or not info.http.startswith("http://"):
        raise NoServer(
            "the server does not listen to plain HTTP on this machine, by which it is asked; it "
            "takes snapshots and prunes by itself, or by POST /v1/snapshot"
        )
    try:
        token = read_regular(f"{data}/{ADMIN_NAME}", _TOKEN_BYTES_MAX).decode().strip()
        headers = {"Authorization": f"Bearer {token}"}
        asked = Request(f"{info.http}/v1/snapshot", method="POST", headers=headers)  # noqa: S310
        with urlopen(asked, timeout=_ANSWER_S) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        raise StoreUnavailable(f"the server refuses: {error.code} {error.reason}") from error
    except (OSError, URLError, ValueError) as error:
        raise StoreUnavailable(f"the server at {info.http} is not reached: {error}") from error
    return int(told["seq"])
