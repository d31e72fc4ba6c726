"""`beaver reload` where the disk has not a byte left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beaver_chaos.faults.full_disk import Ballast, small_disk
from tests.scenarios.test_reload import Shop
from tests.support.needs import need_small_disk
from tests.support.program import enqueue, events_of, eventually, run_beaver, status

pytestmark = pytest.mark.chaos


@pytest.fixture(autouse=True)
def _mounts(tmp_path: Path) -> None:
    need_small_disk(tmp_path / "try")


def test_a_reload_on_a_full_disk_brings_new_code_and_more_workers(tmp_path: Path) -> None:
    """What runs keeps its attempt, what waits runs in the new code, and room is found later.

    The code lies on another disk: this one holds the data directory alone.
    """
    with small_disk(tmp_path / "small", 200 << 20) as small:
        shop = Shop(tmp_path)
        shop.data = small / "data"
        shop.write("old")
        settings = tmp_path / "beaver.yaml"
        settings.write_text("workers: 1\n")
        ballast = Ballast(small / "ballast")
        with shop.serving() as server:
            adopted = (shop.data / "wal.next", shop.data / "wal.adopted")
            eventually(lambda: any(path.exists() for path in adopted), "a segment is prepared")
            shop.hold("long")
            enqueue(shop.data, *({"id": f"job-{n}", "task": "work"} for n in range(20)))
            ballast.leave(0)
            shop.write("new")
            settings.write_text("workers: 3\nqueues:\n  mail: {weight: 7}\n")
            said = shop.reload()
            assert "reloaded: 3 new workers" in said
            assert os.statvfs(small).f_bavail < 64, "what the helper gave back is no segment"
            server.drained(20)
            assert len(status(shop.data)["workers"]) == 4
            shop.let_go("long")
            server.drained(21)
            shop.write("broken", first="import no_such_module")
            assert "no_such_module" in shop.reload(code=2)
            done = run_beaver("enqueue", "work", "--data", str(shop.data), "--id", "later")
            assert done.returncode == 0, done.stderr  # The log's room was made before.
            server.drained(22)
            ballast.drop()
            assert [shop.result(job) for job in ("long", "job-19", "later")] == [
                "old", "new", "new"
            ]  # fmt: skip
        assert events_of(shop.data, "long") == ["ENQUEUE", "DISPATCH", "ACK"]
