"""`beaver ship`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from beaver.cli import output
from beaver.cli.store import Store, on_directory
from beaver.errors import InvalidInput
from beaver.text.durations import format_size, parse_duration_ms
from beaver.text.foreign import counted


@on_directory
def ship_command(
    store: Store,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A directory, or a URL: s3://bucket/prefix.")
    ],
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="TIME",
            help="For how long every point can be restored, as 30d [default: for ever].",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        str, typer.Option("--interval", metavar="TIME", help="How often the log is looked at.")
    ] = "1s",
    snapshot_every: Annotated[
        str,
        typer.Option(
            "--snapshot-every", metavar="TIME", help="Least time between two snapshots sent."
        ),
    ] = "1h",
    lease: Annotated[
        str,
        typer.Option(
            "--lease",
            metavar="TIME",
            help="After this time without a sign of life another shipper may take over.",
        ),
    ] = "15s",
    once: Annotated[bool, typer.Option("--once", help="Send what there is now, then end.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only read the target, and replay all that it holds.")
    ] = False,
) -> None:
    """Ship the log to another place, all the time.

    It runs beside a server, or without one, and goes on where the target ends, whatever happened
    before. `beaver restore TARGET` makes a store of it, as of any point. One shipper writes to a
    target.

    Examples:
      beaver ship /mnt/elsewhere/queue
      beaver ship s3://backups/queue --keep 30d
      beaver ship s3://backups/queue --check
    """
    from beaver.shipping.running import Running, Sent
    from beaver.shipping.targets import open_target
    from beaver.system.clock import SystemClock
    from beaver.system.disk import SystemDisk

    place = open_target(target)
    if check:
        _check(store, place)
        return
    times = {
        "--keep": parse_duration_ms(keep, "--keep") if keep else 0,
        "--interval": parse_duration_ms(interval, "--interval"),
        "--snapshot-every": parse_duration_ms(snapshot_every, "--snapshot-every"),
        "--lease": parse_duration_ms(lease, "--lease"),
    }
    for name, least in {"--interval": 50, "--lease": 1_000}.items():
        if times[name] < least:
            raise InvalidInput(f"{name}: {least} ms at least")
    running = Running(
        SystemDisk(),
        SystemClock(),
        store.data,
        place,
        lease_s=times["--lease"] / 1000,
        keep_ms=times["--keep"],
        snapshot_ms=times["--snapshot-every"],
    )
    running.catch_signals()
    if not once:
        output.note(f"shipping {store.data} to {place.name}")
    with output.progress(f"shipping to {place.name}", 0, unit="events") as advance:
        sent = running.run(
            times["--interval"] / 1000, once=once, on_step=lambda p: advance(p.seq, p.last_seq)
        )

    def tell(sent: Sent) -> None:
        output.line(
            f"{sent.target} holds everything up to seq {sent.seq}; "
            f"{counted(sent.sent_bytes, 'byte')} sent"
        )

    store.answer(sent, tell)


def _check(store: Store, place: Any) -> None:
    """Replays all that a target holds."""
    import tempfile

    from beaver.backup.writing import refuse_unless_good
    from beaver.shipping.fetching import fetched
    from beaver.store.log_source import Until
    from beaver.system.descriptors import raise_limit

    raise_limit()
    with (
        output.progress(f"checking {place.name}", 0) as advance,
        fetched(place, Until(), tempfile.gettempdir(), advance) as found,
    ):
        report = refuse_unless_good(found.disk, place.name, None)
        view = {
            "ok": True,
            "target": place.name,
            "store": found.store,
            "first_seq": report.log.first_seq,
            "last_seq": report.log.last_seq,
            "fingerprint": report.log.fingerprint,
            "bytes": found.bytes,
        }

    def tell(view: dict[str, Any]) -> None:
        output.line(
            f"{view['target']}: ok, seq {view['first_seq']} to {view['last_seq']}, "
            f"{format_size(view['bytes'])} (fingerprint {view['fingerprint']})"
        )

    store.answer(view, tell)
