"""A takeover by a server with other settings, while clients enqueue and long jobs run."""

from __future__ import annotations

import json
import os
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beaver import Beaver, InvalidInput, QueueFull
from beaver_spec.traces.following import validate_store
from tests.scenarios.test_takeover import asked, running, serving_next
from tests.support.program import (
    beaver,
    enqueue,
    events,
    eventually,
    status,
)

LONG = {"sleep_ms": 2_500}
FORMER = """
workers: 2
segment_size: 32MiB
payload_size_max: 1MiB
queues:
  mail: {weight: 30}
  clicks: {durable_dispatch: false}
"""
FOLLOWING = """
workers: 3
executor: thread
segment_size: 16MiB
payload_size_max: 64KiB
log_format: json
queues:
  mail: {weight: 2, bytes_max: 64KiB}
  clicks: {durable_dispatch: true}
  imports: {paused: true}
"""


class Producers:
    """Threads that enqueue jobs, each through a client of its own, until they are stopped."""

    def __init__(self, paths: list[Path]) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._failed: list[BaseException] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._produce, args=(n, path)) for n, path in enumerate(paths)
        ]
        for thread in self._threads:
            thread.start()

    def _produce(self, number: int, path: Path) -> None:
        app = Beaver(path)
        queues = ("default", "mail", "clicks")
        try:
            for n in range(1_000_000):
                if self._over.wait(0.004):
                    return
                queue = queues[n % 3]
                try:
                    job = app.enqueue("echo", n, id=f"{number}-{n}", queue=queue)
                except QueueFull:
                    self.refused.append(f"{number}-{n}")
                    continue
                self.acknowledged.append(job.id)
        except BaseException as error:
            self._failed.append(error)
            raise

    def goes_on(self) -> None:
        """Returns once each of them has been answered again."""
        then = Counter(name.partition("-")[0] for name in self.acknowledged)

        def all_on() -> bool:
            now = Counter(name.partition("-")[0] for name in list(self.acknowledged))
            return all(now[str(n)] > then[str(n)] + 5 for n in range(len(self._threads)))

        eventually(lambda: self._failed or all_on(), "each producer goes on")
        assert not self._failed, self._failed

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self._failed, self._failed


@contextmanager
def producing(*paths: Path) -> Iterator[Producers]:
    producers = Producers(list(paths))
    try:
        yield producers
    finally:
        producers.stop()


def dotted(home: Path) -> str:
    return os.path.relpath(home, home.parent) + "/../" + home.name + "//"


def linked(home: Path) -> str:
    link = home.parent / "link"
    link.symlink_to(home)
    return str(link)


@pytest.mark.parametrize(
    ("spelt", "deep"),
    [
        (str, False),
        (lambda home: home.name, False),
        pytest.param(dotted, False, marks=pytest.mark.nightly),
        pytest.param(linked, False, marks=pytest.mark.nightly),
        pytest.param(linked, True, marks=pytest.mark.nightly),
    ],
    ids=["the same", "relative", "with dots", "through a link", "through a short link"],
)
def test_a_takeover_with_other_settings_under_load_loses_and_charges_nothing(
    tmp_path: Path, spelt: Callable[[Path], str], deep: bool
) -> None:
    """Workers, executor, segments, log format, limits, queues and the path's spelling differ.

    What the former one took in is run, also where the new one would refuse it; what comes
    later is held against the new settings, by producers that were there all the time.
    """
    parent = tmp_path / ("d" * 120) if deep else tmp_path
    home = parent / "data"
    parent.mkdir(exist_ok=True)
    (tmp_path / "former.yaml").write_text(FORMER)
    (tmp_path / "following.yaml").write_text(FOLLOWING)
    with running(home, "--config", str(tmp_path / "former.yaml"), cwd=parent) as former:
        former.ready()
        other = Path(spelt(home))
        large = "x" * 200_000
        former_client = Beaver(home)
        enqueue(home, *({"id": f"long-{n}", "payload": LONG} for n in range(5)))
        former_client.enqueue("echo", large, id="large")
        enqueue(home, {"id": "waits", "queue": "imports", "delay": "10m"})
        eventually(lambda: former.status()["in_flight"] >= 2, "long jobs run")
        through = other if other.is_absolute() else parent / other
        with producing(home, home, through) as producers:
            producers.goes_on()
            following = serving_next(
                other, "--config", str(tmp_path / "following.yaml"), cwd=parent
            )
            with following as server:
                eventually(lambda: asked(former), "the former server is asked to leave")
                producers.goes_on()  # The former one takes in what comes while its jobs end.
                assert former.wait() == 0
                ready = json.loads(server.ready())
                assert "echo" in ready["tasks"]
                producers.goes_on()
                found = status(home)
                assert len(found["workers"]) == 3
                assert found["epoch"] == 2
                assert set(found["queues"]["imports"]) >= {"paused"}
                for client in (former_client, Beaver(through)):
                    with pytest.raises(InvalidInput, match="payload_size_max"):
                        client.enqueue("echo", large)
                producers.stop()
                everything = len(producers.acknowledged) + 6
                eventually(lambda: status(home)["completed"] == everything, "all but one ran")
                found = status(home)
                assert (found["pending"], found["queues"]["imports"]["paused"]) == (1, True)
                assert server.process.poll() is None
            assert all(json.loads(line) for line in server.stderr)
    log = events(home)
    ended = Counter(e["job"] for e in log if e["event"] == "ACK")
    assert set(ended) == {*producers.acknowledged, *(f"long-{n}" for n in range(5)), "large"}
    assert set(ended.values()) == {1}
    assert {e["attempt"] for e in log if e["event"] == "ACK"} == {1}
    assert not {e["event"] for e in log} & {"RETRY", "TIMEOUT", "DEAD"}
    assert validate_store(str(home)).ok
    beaver("verify", str(home))


@pytest.mark.parametrize("by", ["takeover", "reload"])
def test_a_client_of_the_former_server_learns_that_more_is_allowed(tmp_path: Path, by: str) -> None:
    """The bound on payloads that it was told with its first hello is not the last word."""
    home, file = tmp_path / "data", tmp_path / "beaver.yaml"
    file.write_text("payload_size_max: 1KiB\n")
    with running(home, "--workers", "1", cwd=tmp_path) as former:
        former.ready()
        client = Beaver(home)
        large = "x" * 1_023
        client.enqueue("echo", "x" * 1_022)  # With its quotes it is as long as it may be.
        with pytest.raises(InvalidInput, match="payload_size_max"):
            client.enqueue("echo", large)
        file.write_text("payload_size_max: 1025B\n")
        if by == "reload":
            beaver("reload", "--data", str(home))
            client.enqueue("echo", large)
            former.drained(2)
            return
        with serving_next(home, "--workers", "1", cwd=tmp_path) as following:
            following.ready()
            client.enqueue("echo", large)
            following.drained(2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("--http", "{taken}"), "cannot listen on"), (("-A", "no_such_module:app"), "cannot import")],
    ids=["an address that is taken", "an application that is not there"],
)
def test_nobody_leaves_for_a_server_that_cannot_start(
    tmp_path: Path, arguments: tuple[str, str], named: str
) -> None:
    """It ends with 2, and the other one was not asked."""
    home = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as other, running(home) as former:
        former.ready()
        option, value = arguments
        value = value.format(taken=f"127.0.0.1:{other.getsockname()[1]}")
        with running(home, option, value, "--takeover") as following:
            assert following.wait() == 2
            assert named in "".join(following.stderr)
        assert not asked(former)
        enqueue(home, {"id": "a"})
        former.drained(1)


def test_the_address_of_the_former_server_goes_to_the_next_one(tmp_path: Path) -> None:
    """It is taken until the other one has left, which is no reason to refuse it."""
    home = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running(home, "--http", address) as former:
        assert address in former.ready()
        with serving_next(home, "--http", address) as following:
            assert address in following.ready()
            assert former.wait() == 0
            with urllib.request.urlopen(f"http://{address}/readyz") as answer:
                assert answer.status == 200
