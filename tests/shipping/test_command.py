"""`beaver ship` as a process: beside a server, to a directory and to S3, killed and started."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.backup.stores import fingerprint
from tests.http_api.client import Http
from tests.shipping.places import directory, in_target
from tests.support.program import BEAVER, beaver, enqueue, environment, eventually, serving


@contextmanager
def shipping(data: Path, target: str, *arguments: str, **env: str) -> Iterator[Any]:
    """A shipper; it is killed if a test leaves it running."""
    command = [*BEAVER, "ship", target, "--data", str(data), "--lease", "1s", "--interval", "50ms"]
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BEAVER, *arguments], capture_output=True, text=True, check=False, env=environment(**env)
    )


def test_a_shipper_beside_a_server_is_killed_and_goes_on(tmp_path: Path) -> None:
    """`kill -9` again and again while jobs come and end; status and metrics say how far it is."""
    data, target = tmp_path / "data", tmp_path / "t"
    with serving(data, "--workers", "1", "--http", "127.0.0.1:0") as server:
        for turn in range(4):
            with shipping(data, str(target)):
                enqueue(data, *({"id": f"{turn}-{n}", "task": "echo"} for n in range(50)))
                if turn:
                    eventually(
                        lambda: any(ship["running"] for ship in server.status()["ships"]),
                        "it says that it lives",
                    )
        with shipping(data, str(target)) as process:
            server.drained(200)

            def caught_up() -> bool:
                (ship,) = server.status()["ships"]
                return bool(ship["running"] and not ship["lag_events"])

            eventually(caught_up, "the target holds everything")
            metrics = Http(data).get("/metrics").raw.decode()
            assert f'beaver_ship_lag_seconds{{target="{target}"}} 0.0' in metrics
            assert f'beaver_ship_seq{{target="{target}"}}' in metrics
            second = run("ship", str(target), "--data", str(data), "--once")
            assert second.returncode == 3
            assert "another shipper" in second.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        assert "no `beaver ship` runs for it" in beaver("status", "--data", str(data))
        enqueue(data, {"id": "later", "task": "echo"})
        eventually(lambda: server.status()["ships"][0]["lag_events"] > 0, "it lags")
        assert server.stop() == 0
    assert run("ship", str(target), "--data", str(data), "--once").returncode == 0
    assert in_target(directory(target), tmp_path)[1] == fingerprint(data)


def test_a_store_is_shipped_to_s3_and_restored_from_there(
    s3: dict[str, str], tmp_path: Path
) -> None:
    """To a real S3 server, by one command each; to any point."""
    data, url = tmp_path / "data", "s3://bucket/queue"
    with serving(data, "--workers", "1") as server, shipping(data, url, **s3) as process:
        enqueue(data, *({"id": f"job-{n}", "task": "echo"} for n in range(100)))
        server.drained(100)
        process.kill()
    done = run("ship", url, "--data", str(data), "--once", "--json", **s3)
    assert done.returncode == 0, done.stderr
    last_seq = json.loads(done.stdout)["seq"]
    checked = json.loads(run("ship", url, "--check", "--json", **s3).stdout)
    assert (checked["last_seq"], checked["fingerprint"]) == (last_seq, fingerprint(data))
    restored = run("restore", url, "--data", str(tmp_path / "again"), "--json", **s3)
    assert json.loads(restored.stdout)["fingerprint"] == fingerprint(data)
    early = run("restore", url, "--data", str(tmp_path / "early"), "--until", "101", "--json", **s3)
    assert json.loads(early.stdout)["last_seq"] <= 101
    assert run("restore", url, "--data", str(data), **s3).returncode == 2
    # A restored store is another one: it cannot spoil the target of its original.
    other = run("ship", url, "--data", str(tmp_path / "again"), "--once", **s3)
    assert (other.returncode, "holds the store" in other.stderr) == (2, True)
    assert run("ship", "s3://nowhere/x", "--data", str(data), "--once", **s3).returncode == 3


def test_a_target_that_fails_is_tried_again_and_told(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "t"
    enqueue(data, {"id": "a", "task": "echo"})
    with shipping(data, str(target)) as process:
        eventually((target / "log").exists, "it ships")
        target.rename(tmp_path / "gone")
        target.write_text("in the way")
        enqueue(data, {"id": "b", "task": "echo"})

        def told() -> str:
            ships = json.loads(beaver("status", "--json", "--data", str(data)))["ships"]
            return str(ships[0]["error"])

        eventually(lambda: "cannot" in told(), "the trouble is told")
        assert process.poll() is None
        target.unlink()
        (tmp_path / "gone").rename(target)
        eventually(lambda: not told(), "it goes on")
    assert run("ship", str(target), "--data", str(data), "--once").returncode == 0
    assert in_target(directory(target), tmp_path)[1] == fingerprint(data)


def test_what_is_no_store_or_no_target_is_said(tmp_path: Path) -> None:
    assert run("ship", str(tmp_path / "t"), "--data", str(tmp_path / "none")).returncode == 6
    assert run("ship", str(tmp_path / "t"), "--check").returncode == 6
    (tmp_path / "empty").mkdir()
    done = run("restore", str(tmp_path / "empty"), "--data", str(tmp_path / "x"))
    assert (done.returncode, "no target" in done.stderr) == (6, True)
    enqueue(tmp_path / "data", {"id": "a", "task": "echo"})
    for wrong in (["--lease", "10ms"], ["--interval", "0"], ["--keep", "soon"]):
        done = run("ship", str(tmp_path / "t"), "--data", str(tmp_path / "data"), *wrong)
        assert done.returncode == 2
