"""What is told of jobs that have ended: right or absent, with a server, without, and as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beaver.client.blocking import Client, connect
from beaver.client.embedded import EmbeddedClient
from beaver.client.opening import KeptClient, open_client
from beaver.errors import InvalidInput
from beaver.request.requests import make_request
from tests.api.served import ServerProcess

AnyClient = Client | KeptClient | EmbeddedClient


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A store with finished jobs; the server that ran them runs on."""
    server = ServerProcess(tmp_path_factory.mktemp("finished"))
    server.start()
    with connect(server.data) as client:
        for n in range(6):
            queue, tags = ("mail", "web")[n % 2], ["eu"] if n < 4 else []
            client.enqueue([make_request("add", {"a": n}, id=f"j{n}", queue=queue, tags=tags)])
            assert client.wait(f"j{n}", 20).state == "completed"
        client.enqueue([make_request("nobody's", None, id="gone")])
        client.discard("gone")
    yield server
    server.kill()


def asked(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beaver", *arguments, "--data", server.data],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(params=["served", "files"])
def client(
    request: pytest.FixtureRequest, finished: ServerProcess, tmp_path: Path
) -> Iterator[AnyClient]:
    """A client of the server, and one that reads a copy of the files."""
    if request.param == "served":
        with connect(finished.data) as served:
            yield served
        return
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for name in ("wal.log", "LOCK"):
        shutil.copy(Path(finished.data, name), copy)
    yield open_client(str(copy))


def test_a_finished_job_is_shown_with_all_that_it_was(client: AnyClient) -> None:
    view = client.show("j3")
    assert (view.state, view.task, view.queue) == ("completed", "add", "web")
    assert (view.attempt, view.max_attempts, view.tags) == (1, 2, ("eu",))
    assert (json.loads(bytes(view.payload)), json.loads(bytes(view.result))) == ({"a": 3}, 3)
    assert view.enqueued_ms is not None
    assert view.finished_ms is not None
    assert view.end_seq is not None
    assert view.as_of_seq is not None
    assert view.enqueued_ms <= view.finished_ms
    assert view.seq < view.end_seq <= view.as_of_seq
    assert client.show("gone").state == "discarded"


def test_finished_jobs_are_listed_by_what_they_were(client: AnyClient) -> None:
    def ids(state: str = "completed", **wanted: Any) -> list[str]:
        return [view.id for view in client.list_jobs(state, **wanted)]

    everything = [f"j{n}" for n in range(6)]
    assert ids() == everything
    assert ids(queue="web") == ["j1", "j3", "j5"]
    assert ids(task="add", tag="eu") == everything[:4]
    assert ids(task="ad") == ids(queue="nowhere") == []
    assert ids("discarded") == ["gone"]
    first = client.list_jobs("completed", limit=2)
    assert ids(after_seq=first[-1].end_seq, limit=2) == ["j2", "j3"]
    third = client.list_jobs("completed")[2]
    assert third.finished_ms is not None
    assert "j1" not in ids(since=third.finished_ms)
    assert ids(since=third.finished_ms, until=third.finished_ms + 1) == ["j2"]
    with pytest.raises(InvalidInput, match="about when a job finished"):
        client.list_jobs("pending", since=1)


def test_a_story_is_whole_and_says_how_far_it_goes(client: AnyClient) -> None:
    view = client.explain("j0")
    assert [event.event for event in view.events] == ["ENQUEUE", "DISPATCH", "ACK"]
    assert view.job.task == "add"
    assert view.as_of_seq >= view.events[-1].seq
    assert not view.lagging


def test_json_leaves_out_what_is_not_known(finished: ServerProcess) -> None:
    shown = json.loads(asked(finished, "show", "j3", "--json").stdout)
    assert (shown["task"], shown["result"], shown["attempt"]) == ("add", 3, 1)
    listed = [
        json.loads(line)
        for line in asked(finished, "list", "--state", "completed", "--json").stdout.splitlines()
    ]
    assert [job["id"] for job in listed] == [f"j{n}" for n in range(6)]
    assert all(job["as_of_seq"] and "worker" not in job for job in listed)


def test_a_list_of_nothing_says_where_the_finished_jobs_are(finished: ServerProcess) -> None:
    done = asked(finished, "list")
    assert done.returncode == 0
    assert "6 have completed: `beaver list --state completed` lists them" in done.stdout
    assert asked(finished, "list", "--state", "dead").stdout.startswith("no such jobs")
    assert "as of seq" in asked(finished, "list", "--state", "completed", "--tag", "x").stdout
    tagged = asked(finished, "list", "--state", "completed", "--tag", "eu").stdout
    assert [line.split()[1] for line in tagged.splitlines()[1:]] == ["j0", "j1", "j2", "j3"]
