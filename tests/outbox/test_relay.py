"""The outbox: a job comes in once if its transaction was committed, whenever the relay dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from beaver import AccessDenied, Beaver, InvalidInput, StoreUnavailable, outbox
from tests.http_client.conftest import url_of
from tests.outbox.conftest import Shop
from tests.support.program import (
    BEAVER,
    Server,
    beaver,
    environment,
    events,
    eventually,
    run_beaver,
    serving,
)

STEPS = ("claim", "before-send", "after-send", "before-commit", "after-settle")


def came_in(data: Path, prefix: str) -> list[str]:
    """Returns jobs in the order in which they came in; each as often as it did."""
    log = events(data)
    return [e["job"] for e in log if e["event"] == "ENQUEUE" and e["job"].startswith(prefix)]


def test_jobs_come_in_with_their_transaction_or_never(shop: Shop) -> None:
    jobs = [f"tx-{shop.url[:6]}-{n}" for n in range(20)]
    shop.order(*jobs)
    with closing(shop.connect()) as connection:
        outbox.add(connection, shop.app.request("echo", 1, id=f"{jobs[0]}-never"))
        connection.rollback()
    with closing(shop.relay()) as relay:
        assert relay.lag().waiting == 20
        assert tuple(relay.drain()) == (20, 0)
        assert relay.lag() == (0, 0, 0)
    assert came_in(shop.data, "tx-" + shop.url[:6]) == jobs, "once, and in their order"
    assert shop.app.handle(jobs[3]).result(timeout=20) == jobs[3]


KILLED = """
import os, signal, sys

from beaver.client.reconnecting import ReconnectingClient
from beaver.outbox import Relay, databases

step, url, data = sys.argv[1:]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


kind = databases._Sqlite if url.startswith("sqlite") else databases._Postgres
if step == "claim":
    kind.claim = die
if step == "before-send":
    ReconnectingClient.call = die
if step == "after-send":
    call = ReconnectingClient.call
    ReconnectingClient.call = lambda self, one: die(call(self, one))
if step == "before-commit":
    kind.settle = die
if step == "after-settle":
    settle = kind.settle
    kind.settle = lambda self, *told: die(settle(self, *told))
Relay(url, data).drain()
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_relay_that_is_killed_loses_and_doubles_nothing(shop: Shop, step: str) -> None:
    jobs = [f"kill-{step}-{shop.url[:6]}-{n}" for n in range(5)]
    shop.order(*jobs)
    program = [sys.executable, "-c", KILLED, step, shop.url, str(shop.data)]
    died = subprocess.run(program, check=False, timeout=60, env=environment())
    assert died.returncode == -signal.SIGKILL
    assert shop.rows() == ([] if step == "after-settle" else jobs)
    with closing(shop.relay()) as relay:
        # PostgreSQL may need a moment to see that its client has died.
        eventually(lambda: relay.drain() is not None and not shop.rows(), "all is handed over")
    assert came_in(shop.data, f"kill-{step}-{shop.url[:6]}") == jobs


def test_many_relays_hand_over_once_and_in_order(shop: Shop) -> None:
    """Rows are written while they work, by several writers."""
    mark = f"many-{shop.url[:6]}"
    written: list[str] = []
    stop = threading.Event()
    relays = [shop.relay(interval_s=0.01) for _ in range(4)]
    threads = [threading.Thread(target=relay.run, args=(stop,)) for relay in relays]
    for thread in threads:
        thread.start()
    for n in range(40):
        jobs = [f"{mark}-{n:03}-{k}" for k in range(5)]
        shop.order(*jobs)
        written += jobs
    eventually(lambda: not shop.rows(), "all is handed over")
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sum(relay.sent for relay in relays) == len(written)
    for relay in relays:
        relay.close()
    assert came_in(shop.data, mark) == written


def test_a_refused_row_is_set_aside_and_holds_up_nobody(shop: Shop) -> None:
    mark = f"poison-{shop.url[:6]}"
    shop.app.enqueue("echo", "what came first", id=f"{mark}-taken")
    shop.order(f"{mark}-1", f"{mark}-taken", f"{mark}-2")
    with closing(shop.connect()) as connection:
        for job in ('{"id": "x"', '{"id": "y", "taks": "echo"}', "{}"):
            row = f"('{hash(job)}', '{job}', 1)"
            connection.execute(f"INSERT INTO beaver_outbox (id, job, created_ms) VALUES {row}")
        connection.commit()
    shop.order(f"{mark}-3")
    with closing(shop.relay()) as relay:
        assert tuple(relay.drain()) == (3, 4)
        assert relay.lag().set_aside == 4
        refused = {one.id: one.error for one in relay.database.refused(10)}
        assert "Conflict" in refused[f"{mark}-taken"]
        assert any("taks" in error for error in refused.values())
        assert relay.database.again([f"{mark}-taken"]) == 1
        assert tuple(relay.drain()) == (0, 1)
        assert relay.database.again(None) == 4
    assert came_in(shop.data, mark) == [f"{mark}-{n}" for n in ("taken", "1", "2", "3")]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_outage_is_waited_out_and_nothing_is_lost(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is away at first, then starts; the rows stay where they are meanwhile."""
    away = tmp_path / "away"
    with serving(away, "--http", "127.0.0.1:0") as first:
        url, token = url_of(first.data), (away / "token").read_text().strip()
    shop.order("out-1", "out-2")
    app = Beaver(url, token=token, timeout="500ms")
    relay = outbox.Relay(shop.url, app.connection)
    with pytest.raises(StoreUnavailable, match="no server answers"):
        relay.step()
    assert shop.rows() == ["out-1", "out-2"]
    stop = threading.Event()
    running = threading.Thread(target=relay.run, args=(stop,))
    running.start()
    eventually(lambda: "nothing is handed over for now" in caplog.text, "it is told")
    with serving(away, "--http", url.removeprefix("http://")):
        eventually(lambda: not shop.rows(), "all is handed over")
        stop.set()
        running.join(60)
    relay.close()
    assert Counter(came_in(away, "out-")) == {"out-1": 1, "out-2": 1}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_token_that_may_not_enqueue_sets_no_row_aside(shop: Shop, server: Server) -> None:
    """What is wrong with the relay is not wrong with a job; but one job's queue is its own."""
    made = beaver("token", "create", "--role", "read", "--data", str(server.data), "--json")
    reader = json.loads(made)["token"]
    made = beaver(
        "token", "create", "--role", "produce", "--queue", "mail", "--data", str(server.data),
        "--json",
    )  # fmt: skip
    producer = json.loads(made)["token"]
    mark = f"may-{shop.url[:6]}"
    shop.order(f"{mark}-1", queue="mail")
    shop.order(f"{mark}-2", queue="other")
    shop.order(f"{mark}-3", queue="mail")
    relay = outbox.Relay(shop.url, url_of(server.data), token=reader)
    with pytest.raises(AccessDenied):
        relay.step()
    assert shop.rows() == [f"{mark}-{n}" for n in (1, 2, 3)]
    relay.close()
    relay = outbox.Relay(shop.url, url_of(server.data), token=producer)
    assert tuple(relay.drain()) == (2, 1)
    relay.close()
    assert came_in(server.data, mark) == [f"{mark}-1", f"{mark}-3"]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_command_makes_relays_and_tells(shop: Shop, server: Server) -> None:
    mark, where = f"cli-{shop.url[:6]}", ("--db", shop.url)
    assert "is there" in beaver("outbox", "create", *where)
    shop.order(f"{mark}-1", f"{mark}-2")
    told = json.loads(beaver("outbox", "status", *where, "--json"))
    assert (told["waiting"], told["set_aside"]) == (2, 0)
    assert told["oldest_ms"] >= 0
    done = beaver("outbox", "relay", "--once", *where, "--data", str(server.data))
    assert done == "2 jobs handed over, 0 set aside\n"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*BEAVER, "outbox", "relay", *where, "--data", str(server.data)]
    relay = subprocess.Popen(
        [*command, "--metrics", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, env=environment()
    )

    def metrics() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    try:
        shop.order(f"{mark}-3")
        eventually(lambda: "beaver_outbox_sent_total 1.0" in metrics(), "it is counted")
        assert "beaver_outbox_waiting 0.0" in metrics()
        assert "beaver_outbox_lag_seconds 0.0" in metrics()
        assert "beaver_outbox_up 1.0" in metrics()
    finally:
        relay.send_signal(signal.SIGTERM)
    assert relay.wait(60) == 0
    assert relay.stdout is not None
    relay.stdout.close()
    assert came_in(shop.data, mark) == [f"{mark}-{n}" for n in (1, 2, 3)]


def test_wrong_input_is_told() -> None:
    for arguments, said in (
        (("relay",), "BEAVER_OUTBOX_DB"),
        (("relai", "--db", "sqlite:///x.db"), "did you mean relay?"),
        (("status", "--db", "mysql://x/y"), "sqlite:///path or postgresql://"),
        (("status", "--db", "sqlite:///x.db", "job"), "retry"),
        (("status", "--db", "sqlite:///x.db", "--table", "a;b"), "table"),
    ):
        done = run_beaver("outbox", *arguments)
        assert done.returncode == 2, done
        assert said in done.stderr
    done = run_beaver("outbox", "status", "--db", "sqlite:////nowhere/x.db")
    assert done.returncode == 3
    assert "no file /nowhere/x.db" in done.stderr
    with pytest.raises(InvalidInput, match="no connection"):
        outbox.add(object(), Beaver("x").request("echo"))
    with pytest.raises(InvalidInput, match="a request is expected"):
        outbox.add(None, {"task": "echo"})  # type: ignore[arg-type]
