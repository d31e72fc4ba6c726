"""Finding jobs for `list`: in the order of their seqs, a few at a time, whatever happens then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver.errors import InvalidInput
from beaver.inspect import finding, queries
from beaver.inspect.finding import (
    FINISHED,
    LIST_BYTES_MAX,
    LIST_LIMIT_MAX,
    STATES,
    at_once,
    find_jobs,
)
from beaver.request.requests import make_request
from beaver.structs.views import JobView
from beaver_model import State
from beaver_model.commands import Discard, Enqueue, NewJob
from tests.model import pasts
from tests.runtime.test_service import served
from tests.worlds.model import World, job
from tests.worlds.runtime import on_loop

UNFINISHED = tuple(word for word in STATES if word not in FINISHED)
Steps = Generator[None, None, list[JobView]]


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "SLICE_JOBS", 3)


def by_a_scan(state: State, word: str, queue: str, task: str) -> list[tuple[int, str]]:
    """Finds the same jobs as plainly as can be."""
    rows = [
        (row.seq, row.id)
        for row in state.jobs.values()
        if word in ("", queries.state_word(row.state))
        and queue in ("", row.spec.queue)
        and task in ("", row.spec.task)
    ]
    return sorted(rows)


def finish(steps: Steps, meanwhile: Callable[[], None] = lambda: None) -> list[JobView]:
    """Goes on to the end, and does something in each pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            views: list[JobView] = end.value
            return views
        meanwhile()


def names(views: list[JobView]) -> list[tuple[int, str]]:
    return [(view.seq, view.id) for view in views]


@given(st.binary(min_size=8, max_size=8), st.integers(0, 60))
def test_it_finds_what_a_scan_finds(seed: bytes, length: int) -> None:
    draw = Random(seed)
    state = pasts.Life(
        [pasts.drawn_ask(draw, range(len(pasts.SPECS))) for _ in range(length)]
    ).state
    for word in ("", *UNFINISHED):
        for queue in ("", *state.queues):
            for task in ("", "send"):
                found = by_a_scan(state, word, queue, task)
                assert names(at_once(find_jobs(state, word, queue, task))) == found
                for at in {0, len(found) // 2, len(found) - 1} & set(range(len(found))):
                    after_seq = found[at][0]
                    rest = names(at_once(find_jobs(state, word, queue, task, after_seq)))
                    assert rest == found[at + 1 :]
                    page = names(at_once(find_jobs(state, word, queue, task, after_seq, 2)))
                    assert page == found[at + 1 : at + 3]


@given(st.binary(min_size=8, max_size=8), st.sampled_from(("", *UNFINISHED)))
def test_whatever_happens_meanwhile_each_job_comes_once_and_in_order(
    seed: bytes, word: str
) -> None:
    draw = Random(seed)
    life = pasts.Life([pasts.drawn_ask(draw, range(3)) for _ in range(40)])
    stayed = set(by_a_scan(life.state, word, "", ""))

    def live_on() -> None:
        life.live([pasts.drawn_ask(draw, range(3)) for _ in range(3)])
        stayed.intersection_update(by_a_scan(life.state, word, "", ""))

    found = names(finish(find_jobs(life.state, word), live_on))
    assert found == sorted(set(found))
    assert stayed <= set(found)


def test_a_job_that_goes_meanwhile_is_left_out() -> None:
    world = World()
    world.enqueue(*(job(str(n)) for n in range(10)))
    steps = find_jobs(world.state)
    next(steps)
    world.do(Discard("1"))  # looked at already
    world.do(Discard("5"))
    next(steps)
    world.do(Discard("8"))
    found = finish(steps)
    assert [view.id for view in found] == ["0", "1", "2", "3", "4", "6", "7", "9"]


def test_a_page_has_so_many_bytes_of_payload_and_no_more() -> None:
    half = LIST_BYTES_MAX // 2
    world = World()
    sizes = [half, half, 1, LIST_BYTES_MAX + 1]
    for n, size in enumerate(sizes):
        plain = job(str(n))
        world.do(Enqueue([NewJob(plain.id, plain.spec, b"1" * size, plain.digest)]))
    pages, after_seq = [], 0
    while page := at_once(find_jobs(world.state, after_seq=after_seq)):
        pages.append([view.id for view in page])
        after_seq = page[-1].seq
    assert pages == [["0", "1"], ["2"], ["3"]]


def test_it_finds_jobs_by_tag() -> None:
    world = World()
    for n in range(8):
        plain = job(str(n))
        tags = ("eu", f"t{n % 2}") if n % 4 else ()
        world.do(Enqueue([NewJob(plain.id, plain.spec, b"1", plain.digest, tags=tags)]))
    found = at_once(find_jobs(world.state, tag="eu"))
    assert [view.id for view in found] == ["1", "2", "3", "5", "6", "7"]
    found = at_once(find_jobs(world.state, tag="t1", after_seq=2, limit=2))
    assert [view.id for view in found] == ["3", "5"]


@pytest.mark.parametrize("word", ["", "dead", "pending"])
def test_only_finished_jobs_are_asked_for_by_time(word: str) -> None:
    for times in ((1, 0), (0, 1)):
        with pytest.raises(InvalidInput, match="completed or discarded"):
            finding.check_listing(word, 0, *times)
        for finished in FINISHED:
            finding.check_listing(finished, 0, *times)


def test_a_limit_is_bounded() -> None:
    with pytest.raises(InvalidInput, match=f"{LIST_LIMIT_MAX + 1}"):
        at_once(find_jobs(State(), limit=LIST_LIMIT_MAX + 1))
    assert at_once(find_jobs(State(), limit=LIST_LIMIT_MAX)) == []


@on_loop
async def test_a_list_of_many_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, door):
        lister, other = await door.client(), await door.client()
        await lister.ask("enqueue", [make_request("echo", n) for n in range(1_000)])
        listed = asyncio.create_task(lister.ask("list", "pending", "", "", 0, 0))
        for _ in range(20):
            await other.ask("status")
        assert not listed.done()
        assert len(await listed) == 1_000
