"""Actions on many jobs: the set is fixed by the answer, and each of its jobs is counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from beaver.inspect.matching import Member
from beaver.server.bulk.carrying_out import RUNNING_MAX, judge
from beaver.server.bulk.sets import Bulk, BulkFiles, line_of, members_of
from beaver_model.commands import Cancel, Discard, Requeue
from tests.http_api.client import Http
from tests.support.program import Server, events, eventually, serving
from tests.worlds.model import World, job


def enqueue(http: Http, queue: str, count: int, **more: Any) -> list[str]:
    """Enqueues jobs that do not run: their queue is paused."""
    assert http.ask("PATCH", f"/v1/queues/{queue}", {"paused": True}).status == 200
    jobs = [{"id": f"{queue}-{n}", "queue": queue, **more} for n in range(count)]
    assert http.post("/v1/jobs", jobs).status == 200
    return [job["id"] for job in jobs]


def act(http: Http, action: str, where: dict[str, Any]) -> Any:
    """Carries out an action; returns how it went."""
    dry = http.post("/v1/bulk", {"action": action, "where": where, "dry_run": True})
    assert dry.status == 200, dry
    answer = http.post("/v1/bulk", {"action": action, "where": where, "dry_run": False})
    assert answer.status == 202, answer
    assert answer.json["matched"] == dry.json["matched"]
    assert answer.headers["location"] == f"/v1/bulk/{answer.json['bulk']}"
    return ended(http, answer.json["bulk"])


def ended(http: Http, bulk: str) -> Any:
    def ask() -> Any:
        answer = http.get(f"/v1/bulk/{bulk}")
        assert answer.status == 200, answer
        return answer.json if answer.json["state"] == "done" else None

    done = eventually(ask, f"bulk {bulk} is done")
    assert done["done"] + done["refused"] == done["matched"]
    return done


def test_each_action_changes_exactly_the_jobs_that_fit(http: Http) -> None:
    """More than a commit of them; by each filter, and the others stay as they are."""
    jobs = enqueue(http, "b1", 230, tags=["old"], payload={"to": "ada"})
    enqueue(http, "b1x", 3, tags=["old"], payload={"to": "ada"})
    where = {"queue": "b1", "tag": "old", "text": '"ada"', "task": "echo", "state": "pending"}
    assert act(http, "cancel", where)["done"] == 230
    page = http.get("/v1/jobs?queue=b1&state=cancelled&limit=1000").json
    assert [one["id"] for one in page["jobs"]] == jobs
    assert act(http, "retry", {"queue": "b1"})["done"] == 230
    assert act(http, "discard", {"queue": "b1"})["done"] == 230
    assert http.get("/v1/jobs?queue=b1&state=pending").json["jobs"] == []
    assert len(http.get("/v1/jobs?queue=b1x&state=pending").json["jobs"]) == 3


def test_states_that_forbid_an_action_are_not_matched(http: Http) -> None:
    enqueue(http, "b2", 2)
    for action, state in (("retry", "pending"), ("cancel", "dead"), ("discard", "completed")):
        done = act(http, action, {"queue": "b2", "state": state})
        assert (done["matched"], done["done"], done["refused"]) == (0, 0, 0)


def test_time_bounds_are_those_of_the_list(http: Http) -> None:
    """From the first, inclusive, to the last, exclusive."""
    enqueue(http, "b3", 3)
    time.sleep(0.01)
    assert http.post("/v1/jobs", {"id": "b3-late", "queue": "b3"}).status == 201
    came_ms = {j["id"]: j["enqueued_ms"] for j in http.get("/v1/jobs?queue=b3").json["jobs"]}
    first, late = came_ms["b3-0"], came_ms["b3-late"]
    assert first < late
    for bounds, count in (
        ({"until_ms": late}, 3),
        ({"until_ms": late + 1}, 4),
        ({"since_ms": late}, 1),
        ({"since_ms": late + 1}, 0),
        ({"since_ms": first, "until_ms": late}, 3),
        ({"until_ms": 0}, 0),
    ):
        where = {"queue": "b3", **bounds}
        dry = http.post("/v1/bulk", {"action": "discard", "where": where, "dry_run": True})
        assert dry.json == {"matched": count}, bounds


@pytest.mark.parametrize(
    "body",
    [
        {"action": "cancel"},
        {"where": {"queue": "q"}},
        {"action": "cancel", "where": {}},
        {"action": "cancel", "where": {"queue": ""}},
        {"action": "cancel", "where": {"quue": "q"}},
        {"action": "cancel", "where": {"queue": None}},
        {"action": "cancel", "where": {"id": ["a"]}},
        {"action": "cancel", "where": {"state": "running"}},
        {"action": "purge", "where": {"queue": "q"}},
        {"action": "cancel", "where": {"queue": "q"}, "dryrun": True},
        {"action": "cancel", "where": {"queue": "q"}, "dry_run": "yes"},
        {"action": "cancel", "where": {"since_ms": -1}},
        b'{"action": "cancel", "where": {"queue": "q", "queue": "r"}}',
        b'{"action": "cancel", "where": {"queue": "q"}} x',
    ],
)
def test_what_would_match_more_than_was_meant_is_refused(http: Http, body: Any) -> None:
    """Unknown, repeated, empty and missing keys are 400, and nothing is begun."""
    answer = http.post("/v1/bulk", body)
    assert (answer.status, answer.type) == (400, "invalid")


def test_a_purge_discards_what_waits_and_leaves_the_rest(http: Http) -> None:
    jobs = enqueue(http, "b4", 5)
    assert http.post(f"/v1/jobs/{jobs[0]}/cancel").status == 200
    dry = http.post("/v1/queues/b4/purge", {"dry_run": True})
    assert (dry.status, dry.json) == (200, {"matched": 4})
    answer = http.post("/v1/queues/b4/purge")
    assert answer.status == 202
    assert ended(http, answer.json["bulk"])["done"] == 4
    assert http.job(jobs[0])["state"] == "cancelled"
    assert http.get("/v1/queues/b4").json["pending"] == 0
    assert http.post("/v1/queues/none-such/purge").type == "not_found"
    assert http.get("/v1/bulk/none-such").type == "not_found"


def test_each_event_of_an_action_tells_who_asked(server: Server, http: Http) -> None:
    enqueue(http, "b5", 3)
    done = act(http, "discard", {"queue": "b5"})
    told = [e["by"] for e in events(server.data) if e["event"] == "DISCARD" and "b5-" in e["job"]]
    assert told == [done["by"]] * 3
    assert done["by"].startswith("token:")


def test_it_goes_on_after_a_kill_and_changes_no_job_twice(tmp_path: Path) -> None:
    """The set is that of the first answer: a job that came later is left alone."""
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0") as server:
        http = Http(data)
        jobs = enqueue(http, "k", 2_000)
        answer = http.post("/v1/bulk", {"action": "cancel", "where": {"queue": "k"}})
        assert (answer.status, answer.json["matched"]) == (202, 2_000)
        server.kill()
    # Whatever it had come to: one was put back by somebody since, and another came in.
    with serving(data, "--http", "127.0.0.1:0"):
        http = Http(data)
        assert http.post("/v1/jobs", {"id": "k-new", "queue": "k"}).status == 201
        done = ended(http, answer.json["bulk"])
        assert (done["matched"], done["done"], done["refused"]) == (2_000, 2_000, 0)
        cancelled = [e["job"] for e in events(data) if e["event"] == "CANCEL"]
        assert sorted(cancelled) == sorted(jobs)
        assert http.job("k-new")["state"] == "pending"
    with serving(data, "--http", "127.0.0.1:0"):
        assert Http(data).get(f"/v1/bulk/{answer.json['bulk']}").json == done


def test_what_was_under_way_goes_on_beside_a_file_that_is_damaged(tmp_path: Path) -> None:
    """As many as may be at once; the damaged one is left alone, and not known."""
    data = tmp_path / "data"
    files = BulkFiles(str(data))
    with serving(data, "--http", "127.0.0.1:0"):
        http = Http(data)
        enqueue(http, "q", 3)
    for number in range(RUNNING_MAX):
        files.write(Bulk(f"{number}", "cancel", 0), [])
    (data / "bulk" / "broken").write_bytes(b"{")
    with serving(data, "--http", "127.0.0.1:0"):
        http = Http(data)
        assert all(ended(http, f"{number}")["matched"] == 0 for number in range(RUNNING_MAX))
        assert http.get("/v1/bulk/broken").status == 404
    assert (data / "bulk" / "broken").exists()


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Ids of every kind; a file of other content is refused by name."""
    files, bulk = BulkFiles(str(tmp_path)), Bulk("b", "retry", 2, "uid:1", 5)
    members = [Member('a\u2028\N{BEAVER}"\\', 3, 0), Member("x" * 255, 1 << 50, 7)]
    files.write(bulk, [line_of(member) for member in members])
    found, lines = files.read("b")
    assert (found, list(members_of(lines))) == (bulk, members)
    assert files.names() == ["b"]
    assert oct((tmp_path / "bulk" / "b").stat().st_mode)[-3:] == "600"
    raw = (tmp_path / "bulk" / "b").read_bytes()
    for damaged in (b"", b"{}", raw[:-1], raw.replace(b'"b"', b'"c"', 1)):
        (tmp_path / "bulk" / "b").write_bytes(damaged)
        with pytest.raises(Exception, match=r"bulk/b"):
            files.read("b")


def test_whoever_was_changed_before_is_counted_and_not_changed_again() -> None:
    """By this action before a crash, or by somebody else since."""
    world = World()
    world.enqueue(job("a"))
    seq = world.state.jobs["a"].seq
    first = Member("a", seq, 0)
    assert judge(world.state, "cancel", first) is None
    world.do(Cancel("a"))
    assert judge(world.state, "cancel", first) == "done"
    assert judge(world.state, "retry", first) is None
    world.do(Requeue("a"))
    assert judge(world.state, "retry", first) == "done"
    assert judge(world.state, "cancel", first) == "refused", "another life of the job"
    assert judge(world.state, "discard", Member("a", seq, 1)) is None
    world.do(Discard("a"))
    assert judge(world.state, "discard", Member("a", seq, 1)) == "done"
    assert judge(world.state, "cancel", Member("a", seq, 1)) == "refused"
    assert judge(world.state, "discard", Member("a", seq + 1, 0)) == "refused", "another job"
    assert judge(world.state, "discard", Member("b", seq, 0)) == "refused"
