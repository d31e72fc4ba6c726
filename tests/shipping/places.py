"""Places to ship to, for tests: real ones, and one that fails where a test says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from beaver.journal.wal.layout import Layout
from beaver.ports import File
from beaver.replay.replaying import check
from beaver.replay.verifying import verify
from beaver.shipping.fetching import fetched
from beaver.shipping.ownership import Ownership
from beaver.shipping.shipper import Shipper
from beaver.shipping.targets import DirectoryTarget, Read, Target
from beaver.store.log_source import Until
from tests.backup.stores import CLOCK, DISK, quiet
from tests.support.needs import need
from tests.support.program import eventually
from tests.worlds.stores import STORE, LoggedWorld

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone."""


class KillingTarget:
    """A target under a process that is killed at its n-th change, before it or behind it."""

    def __init__(self, target: Target, changes: int, *, behind: bool) -> None:
        self._target, self._left, self._behind = target, changes, behind
        self.name = target.name

    def _change(self, change: Callable[[], T]) -> T:
        self._left -= 1
        if self._left == 0 and not self._behind:
            raise Killed
        done = change()
        if self._left == 0:
            raise Killed
        return done

    def list(self) -> dict[str, int]:
        return self._target.list()

    def read(self, key: str) -> Read | None:
        return self._target.read(key)

    def open(self, key: str, scratch: Path) -> File:
        return self._target.open(key, scratch)

    def put_new(self, key: str, data: bytes) -> bool:
        return self._change(lambda: self._target.put_new(key, data))

    def swap(self, key: str, data: bytes, version: str) -> bool:
        return self._change(lambda: self._target.swap(key, data, version))

    def put_file(self, key: str, file: File) -> None:
        self._change(lambda: self._target.put_file(key, file))

    def delete(self, key: str) -> None:
        self._change(lambda: self._target.delete(key))


class Times:
    """A monotonic clock that a test moves; whoever waits, moves it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def owning(target: Target, times: Times | None = None, store: bytes = STORE) -> Ownership:
    """The right to a target, taken; whoever had it is found dead."""
    times = times or Times()
    ownership = Ownership(target, store.hex(), now_s=times, pause=times.wait)
    ownership.acquire()
    return ownership


def shipper(target: Target, world: LoggedWorld, keep_ms: int = 0, snapshot_ms: int = 0) -> Shipper:
    return Shipper(
        DISK,
        Layout(world.path),
        target,
        owning(target),
        CLOCK,
        keep_ms=keep_ms,
        snapshot_ms=snapshot_ms,
    )


def in_target(target: Target, scratch: Path, until: Until | None = None) -> tuple[int, str]:
    """Last seq and fingerprint of what a target holds; all of it is verified."""
    with fetched(target, until or Until(), str(scratch), quiet) as found:
        report = verify(found.disk, target.name)
        assert report.ok, report
        assert not report.log.torn_tail_bytes
        assert report.log.fingerprint
        return report.log.last_seq, report.log.fingerprint


@contextmanager
def s3_server(directory: Path) -> Iterator[dict[str, str]]:
    """A local server of S3 with the bucket `bucket`; yields the environment of its clients."""
    need(None if find_spec("moto") and find_spec("obstore") else "moto and obstore, for S3")
    log = directory / "s3.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=out,
            stderr=out,
        )
    try:
        found = eventually(
            lambda: re.findall(r"http://127\.0\.0\.1:\d+", log.read_text()), "S3 listens"
        )
        scope = "Credential=a/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
        asked = urllib.request.Request(
            f"{found[0]}/bucket",
            method="PUT",
            headers={"Authorization": f"AWS4-HMAC-SHA256 {scope}"},
        )
        urllib.request.urlopen(asked).read()
        yield {
            "AWS_ENDPOINT_URL": found[0],
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
    finally:
        process.kill()
        process.wait()


def files_of(target: Path) -> list[Path]:
    """The objects of a target that is a directory."""
    return sorted(path for path in target.rglob("*") if path.is_file() and path.name != ".lock")


def directory(path: Path) -> DirectoryTarget:
    return DirectoryTarget(os.fspath(path))


def state_at(target: Target, scratch: Path, until: Until) -> str:
    """The fingerprint of what a target gives at a point."""
    with fetched(target, until, str(scratch), quiet) as found:
        report = check(found.disk, target.name, until)
        assert report.ok, report
        assert report.fingerprint
        return report.fingerprint
