"""`beaver outbox`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from beaver.cli import output
from beaver.cli.store import Store, on_store
from beaver.errors import InvalidInput
from beaver.text.durations import format_duration, parse_duration_ms
from beaver.text.foreign import counted
from beaver.text.near import unknown_name

ACTIONS: Final = ("create", "relay", "status", "retry")
DB_VARIABLE: Final = "BEAVER_OUTBOX_DB"
SHOWN_MAX: Final = 100


def _offers(incomplete: str) -> list[str]:
    return [action for action in ACTIONS if action.startswith(incomplete)]


@on_store
def outbox_command(
    store: Store,
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="create, relay, status or retry.",
            autocompletion=_offers,
        ),
    ],
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB...", help="Ids to retry; without one, all.", show_default=False
        ),
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="URL",
            help="The database: sqlite:///app.db or postgresql://... "
            f"[default: {DB_VARIABLE}, which also keeps a password out of sight].",
        ),
    ] = None,
    table: Annotated[
        str, typer.Option("--table", metavar="NAME", help="The outbox's table.")
    ] = "beaver_outbox",
    once: Annotated[
        bool, typer.Option("--once", help="Hand over what waits now, and end.")
    ] = False,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval", metavar="TIME", help="From one look to the next [default: 500ms]."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="HOST:PORT", help="Serve the lag as metrics of Prometheus."
        ),
    ] = None,
) -> None:
    """Hand over the jobs that an application has written into its own database.

    `create` makes the table, `relay` hands its rows over until it is stopped, `status` says how
    many wait, for how long, and which were refused; `retry` has refused ones sent again. Many
    relays may run: one works, the others stand by.

    Examples:
      beaver outbox create --db sqlite:///app.db
      beaver outbox relay --db sqlite:///app.db
      beaver outbox relay --db postgresql://app@db/shop --metrics 127.0.0.1:9401
      beaver outbox status --db sqlite:///app.db --json
    """
    if action not in ACTIONS:
        raise InvalidInput(
            f"no action {action!r}{unknown_name(action, ACTIONS)}; there are {', '.join(ACTIONS)}"
        )
    if jobs and action != "retry":
        raise InvalidInput(f"ids go with retry alone: {' '.join(jobs)}")
    url = db or os.environ.get(DB_VARIABLE)
    if not url:
        raise InvalidInput(f"--db: the database is missing; {DB_VARIABLE} may name it as well")
    if action == "relay":
        interval_s = 0.5 if interval is None else parse_duration_ms(interval, "--interval") / 1000
        _relay(store, url, table, once=once, interval_s=interval_s, metrics=metrics)
        return
    from beaver.outbox.databases import open_database

    database = open_database(url, table)
    try:
        if action == "create":
            database.create()
            output.line(f"the outbox {table} is there")
        elif action == "retry":
            output.line(f"{counted(database.again(jobs or None), 'job')} to be sent again")
        else:
            _status(store, database)
    finally:
        database.close()


def _status(store: Store, database: Any) -> None:
    lag, refused = database.lag(), database.refused(SHOWN_MAX)
    if store.as_json:
        output.json_line(
            {
                "waiting": lag.waiting,
                "oldest_ms": lag.oldest_ms,
                "set_aside": lag.set_aside,
                "refused": [one._asdict() for one in refused],
            }
        )
        return
    age = f", the oldest for {format_duration(lag.oldest_ms)}" if lag.waiting else ""
    output.line(f"{counted(lag.waiting, 'job')} waiting{age}, {lag.set_aside} set aside")
    for one in refused:
        output.line(f"{one.id}: {one.error}")


def _relay(
    store: Store, url: str, table: str, *, once: bool, interval_s: float, metrics: str | None
) -> None:
    from beaver.outbox.relay import Relay

    relay = Relay(url, store.connection(), table=table, interval_s=interval_s)
    try:
        if once:
            sent, refused = relay.drain()
            output.line(f"{counted(sent, 'job')} handed over, {refused} set aside")
            return
        told = None if metrics is None else _serve_metrics(relay, metrics)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        output.line(f"handing over from {table} to {store.place}")
        relay.run(stop, told)
        output.line(f"{counted(relay.sent, 'job')} handed over, {relay.refused} set aside")
    finally:
        relay.close()


def _serve_metrics(relay: Any, address: str) -> Callable[[Any], None]:
    """Serves metrics; returns what has to be called with each lag."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise InvalidInput(f"--metrics: HOST:PORT is expected, found {address!r:.80}")
    registry = CollectorRegistry()
    waiting = Gauge("beaver_outbox_waiting", "Rows that wait", registry=registry)
    lag_s = Gauge("beaver_outbox_lag_seconds", "Age of the oldest one", registry=registry)
    aside = Gauge("beaver_outbox_set_aside", "Rows that were refused", registry=registry)
    up = Gauge("beaver_outbox_up", "1 while server and database can be used", registry=registry)
    sent = Counter("beaver_outbox_sent", "Jobs handed over", registry=registry)
    seen = 0

    def told(lag: Any) -> None:
        nonlocal seen
        sent.inc(relay.sent - seen)
        seen = relay.sent
        up.set(lag is not None)
        if lag is not None:
            waiting.set(lag.waiting)
            lag_s.set(lag.oldest_ms / 1000)
            aside.set(lag.set_aside)

    try:
        start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"--metrics: cannot listen on {address}: {error}") from None
    return told
