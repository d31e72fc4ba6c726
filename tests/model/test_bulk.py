"""Runs of like events, applied at once, and batches of them: what one by one gives as well.

Each property draws a past, then one run or batch, then what comes after it.  The past is lived
twice; one life goes on at once, the other one event by event, and nothing that can be asked of
the two may differ.  Mutants of the functions stand in `tests.mutants.sown.runs`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver_model import (
    IllegalEvent,
    JobState,
    Offer,
    Rejection,
    State,
    apply,
    apply_all,
    build_indexes,
    fingerprint,
    freeze,
    legal,
    replay,
    select_run,
    thaw,
    violations,
)
from beaver_model.bounds import ATTEMPTS_MAX, DIGEST_BYTES
from beaver_model.bulk import BULK, RUN_MIN, Form
from beaver_model.commands import (
    Boot,
    Complete,
    CompleteBatch,
    Dispatch,
    DispatchBatch,
    Done,
    Enqueue,
    SetBounds,
)
from beaver_model.deciding import why_not_dispatch
from beaver_model.events import Acked, AnyEvent, Discarded, Dispatched, Enqueued, JobEvent
from beaver_model.freezing import Frozen
from beaver_model.legality import JudgedFrame, refuse_left_in_flight
from tests.model.pasts import FAR_MS, SPECS, Ask, Case, Life, cases, job_of, nth, rows_in
from tests.stateful.running import budget
from tests.stateful.scan import derived

pytestmark = pytest.mark.invariants

TIMES: Final = 10.0
"""Times the examples of a profile: most pasts are short."""


def facts(state: State) -> dict[str, Any]:
    """Returns all that may be asked of a state but the order of its jobs."""
    return {
        "rows": freeze(state),
        "fingerprint": fingerprint(state),
        "derived": derived(state),
        "ready": (state.ready, state.scheduled_live),
        "passes": (state.stride_pass, {n: q.stride_pass for n, q in state.queues.items()}),
        "numbers": {name: queue.number for name, queue in state.queues.items()},
        "turns": [
            [queue.row.name for queue in state.queues.values() if queue in turns]
            for turns in (state.stride_order, state.prefetch_stride_order)
        ],
        "masks": {
            (name, *key): (bucket.mask, bucket.live, bucket.known)
            for name, queue in state.queues.items()
            for key, bucket in queue.buckets.items()
            if bucket.live
        },
        "places": {row.id: row.scheduled for row in state.jobs.values()},
    }


def check_same(
    case: Case, one_way: Callable[[Life], None], other_way: Callable[[Life], None]
) -> None:
    """Checks that two ways on from one past come to the same, whatever comes after."""
    past, _, future = case
    lives = Life(past), Life(past)
    one_way(lives[0])
    other_way(lives[1])
    for _ in range(2):
        assert violations(lives[0].state) == violations(lives[1].state) == []
        assert facts(lives[0].state) == facts(lives[1].state)
        for life in lives:
            life.live(future)
    for idle in (True, False):
        orders = []
        for way in (one_way, other_way):
            life = Life(past)
            way(life)
            orders.append(life.hand_out(Offer(idle=idle)))
        assert orders[0] == orders[1]
        ends = [life.hand_out(Offer(idle=idle)) for life in lives]
        assert ends[0] == ends[1]


# -- runs ------------------------------------------------------------------------------------


RUNS: Final = ("enqueued", "handed out", "dispatched", "acked", "booted")


def run_of(life: Life, ask: Ask) -> list[AnyEvent]:
    """Returns events that are legal in a row; the state stays as it is."""
    state = life.state
    match ask:
        case ("enqueued", jobs):
            taken = state.jobs.keys() | state.tombstones.keys()
            new = [job for job in jobs if f"job-{job[0]}" not in taken]
            decision = life.decide(Enqueue([job_of(job, life.now_ms) for job in new]))
        case ("booted", power_cut):
            decision = life.decide(Boot(frozenset(), power_cut))
        case ("handed out", offer, count, workers):
            life.advance()
            rows = select_run(state, offer, life.now_ms, count)
            return [Dispatched(row.id, 1 + n % workers) for n, row in enumerate(rows)]
        case ("dispatched", picks, workers, _):
            # A suspect runs alone among suspects, and a log says nothing else.
            suspects = [row for row in rows_in(state, JobState.PENDING) if row.suspect]
            barred = suspects if state.suspects_in_flight else suspects[1:]
            pending = [
                row
                for row in rows_in(state, JobState.PENDING)
                if row not in barred and not why_not_dispatch(state, row, life.now_ms, 0, False)
            ]
            ids = dict.fromkeys(row.id for pick in picks if (row := nth(pending, pick)))
            return [Dispatched(job, 1 + n % workers) for n, job in enumerate(ids)]
        case ("acked", picks):
            held = list(state.in_flight.values())
            ends = {row.id: row.token for pick in picks if (row := nth(held, pick))}
            return [Acked(job, token, b"1") for job, token in ends.items()]
        case _:
            raise AssertionError(ask)
    assert isinstance(decision, list)
    return decision


def test_a_run_applied_at_once_leaves_what_its_events_leave_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met: Counter[Any] = Counter()
    count_runs(met, monkeypatch)

    @budget(TIMES)
    @given(cases(RUNS))
    def holds(case: Case) -> None:
        def at_once(life: Life) -> None:
            apply_all(life.state, run_of(life, case.act), life.now_ms)

        def one_by_one(life: Life) -> None:
            life.apply(run_of(life, case.act))

        check_same(case, at_once, one_by_one)

    holds()
    expected: set[Any] = {(name, True) for name in ("ENQUEUE", "DISPATCH", "ACK")}
    expected |= {(name, False) for name in ("ENQUEUE", "DISPATCH")}
    assert expected <= set(met), "each kind of run was met, plain and not"


def count_runs(met: Counter[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, form in BULK.items():
        monkeypatch.setitem(BULK, kind, counted(met, kind.NAME, form))  # type: ignore[attr-defined]


def counted(met: Counter[Any], name: str, form: Form) -> Form:
    def wrapped(state: State, events: Sequence[AnyEvent], *, are_legal: bool) -> bool:
        before = freeze(state)
        done = form(state, events, are_legal=are_legal)
        assert done or freeze(state) == before, "nothing changes where it returns False"
        met[name, done] += 1
        met[name, done, "indexed" if state.indexed else "deferred"] += 1
        return done

    return wrapped


def test_a_short_run_is_applied_one_by_one_and_a_mixed_one_too() -> None:
    life, other = Life([]), Life([])
    life.ask(Enqueue([job_of((n, 0, 0, ()), 0) for n in range(RUN_MIN - 1)]))
    other.ask(Enqueue([job_of((n, 0, 0, ()), 0) for n in range(RUN_MIN - 1)]))
    events: list[AnyEvent] = [
        Dispatched("job-0", 1),
        Acked("job-0", 3, b""),
        Dispatched("job-1", 1),
    ]
    apply_all(life.state, events, life.now_ms)
    other.apply(events)
    assert facts(life.state) == facts(other.state)


# -- recovery ---------------------------------------------------------------------------------


SPENT: Final = 6


def spoiled(events: Sequence[AnyEvent], spoil: int, state: State) -> list[AnyEvent]:
    """Returns events of which one cannot follow, as a rule; which and why, `spoil` says."""
    how, at = spoil % 8, spoil // 8 % len(events)
    event = events[at]
    gone = list(state.tombstones) or ["nobody"]
    change: dict[str, Any] = {}
    match how, event:
        case 0, JobEvent():
            # The same job again, at once or after others.
            return [*events[: at + 1], *events[at + 1 :][: spoil // 64], event, *events[at + 1 :]]
        case 1, JobEvent():
            change = {"job": next(iter(state.jobs), "nobody")}
        case 2, JobEvent():
            change = {"job": gone[0]}
        case 3, Enqueued():
            change = {"digest": b"short"}
        case 4, Enqueued():
            change = {"spec": b"\xc1"}
        case 5, Acked():
            change = {"token": event.token + 1}
    return [*events[:at], msgspec.structs.replace(event, **change), *events[at + 1 :]]


def spent(frozen: Frozen, job: str) -> Frozen:
    """Returns a state in which a pending job has no attempt left, as no log leads to."""
    jobs = tuple((*j[:3], ATTEMPTS_MAX, *j[4:]) if j[1] == job else j for j in frozen.jobs)
    return frozen._replace(jobs=jobs)


def in_turn(state: State, events: Sequence[AnyEvent], time_ms: int) -> tuple[int, str] | None:
    """Applies events one by one; returns which is illegal, and why."""
    frame = JudgedFrame(time_ms, state.last_seq + 1, events)
    for event in events:
        reason = legal(state, event, frame)
        if reason is not None:
            return state.last_seq + 1, reason
        apply(state, event, time_ms)
    try:
        refuse_left_in_flight(state)
    except IllegalEvent as error:
        return error.seq, error.reason
    return None


def test_a_run_is_replayed_as_its_events_are_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With indexes and without; an event that cannot follow is named by its seq either way."""
    met: Counter[Any] = Counter()
    count_runs(met, monkeypatch)

    @budget(TIMES)
    @given(cases(RUNS), st.integers(0, 1_000), st.booleans(), st.integers(1, RUN_MIN))
    def holds(case: Case, spoil: int, indexed: bool, run_min: int) -> None:
        life = Life(case.past)
        frozen, events = freeze(life.state), run_of(life, case.act)
        if not events:
            return
        if spoil % 3 and spoil % 8 == SPENT and isinstance(events[-1], Dispatched):
            frozen = spent(frozen, events[-1].job)
        elif spoil % 3:
            events = spoiled(events, spoil, life.state)
        else:
            # Another run in the same frame.
            life.apply(events)
            held = list(life.state.in_flight.items())[:4]
            events += [Acked(row.id, token, b"1") for token, row in held]
        singly, together = (thaw(*frozen, indexed=indexed) for _ in range(2))
        wrong = in_turn(singly, events, life.now_ms)
        told = None
        try:
            replay(together, together.last_seq + 1, life.now_ms, events, run_min=run_min)
        except IllegalEvent as error:
            told = error.seq, str(error).partition("illegal here: ")[2]
        assert told == wrong
        met["illegal" if wrong else "legal", indexed] += 1
        for state in (singly, together):
            build_indexes(state)
            assert list(state.in_flight) == sorted(state.in_flight), "in the order of dispatch"
        if wrong is None:
            assert violations(together) == []
            assert facts(together) == facts(singly)

    holds()
    expected: set[Any] = {
        (name, True, how)
        for name in ("ENQUEUE", "DISPATCH", "ACK")
        for how in ("indexed", "deferred")
    }
    expected |= {(name, indexed) for name in ("legal", "illegal") for indexed in (True, False)}
    assert expected <= set(met), "each kind of run was met, and legal and illegal frames"


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"job": "job-0"}, "exists"),
        ({"job": "early"}, "exists"),
        ({"job": "finished"}, "exists"),
        ({"digest": b"short"}, "digest"),
        ({"spec": b"\xc1"}, "spec"),
    ],
)
def test_one_of_many_that_cannot_have_come_in_is_named_with_its_seq(
    change: dict[str, Any], reason: str, *, indexed: bool
) -> None:
    """Each way in which an ENQUEUE in the middle of a commit may be wrong."""
    state = State()
    if not indexed:
        state.defer_indexes()
    events = [Enqueued(f"job-{n}", SPECS[0], b"1", bytes([n]) * DIGEST_BYTES) for n in range(9)]
    early, finished = (msgspec.structs.replace(events[0], job=job) for job in ("early", "finished"))
    replay(state, 1, 1_000, [early, finished, Discarded("finished")])
    events[4] = msgspec.structs.replace(events[4], **change)
    with pytest.raises(IllegalEvent, match=reason) as told:
        replay(state, 4, 1_000, events)
    assert told.value.seq == 4 + 4
    assert list(state.jobs) == ["early", "job-0", "job-1", "job-2", "job-3"], "those before it"


def test_a_run_of_completions_evicts_as_many_tombstones_as_they_do_one_by_one() -> None:
    """Each event evicts a few, so that none takes long after the bound was lowered."""
    lives = Life([]), Life([])
    for life in lives:
        life.ask(Enqueue([job_of((n, 0, 0, ()), 0) for n in range(24)]))
        for n in range(20):
            life.ask(Dispatch(f"job-{n}", 1))
            life.ask(Complete(f"job-{n}", life.state.last_seq, b"1"))
        life.ask(SetBounds(1, 0))
    tokens = []
    for n in range(20, 24):
        for life in lives:
            life.ask(Dispatch(f"job-{n}", 1))
        tokens.append(lives[0].state.last_seq)
    acks: list[AnyEvent] = [Acked(f"job-{20 + n}", token, b"1") for n, token in enumerate(tokens)]
    before = len(lives[0].state.tombstones)
    apply_all(lives[0].state, acks, lives[0].now_ms)
    lives[1].apply(acks)
    assert len(lives[0].state.tombstones) < before
    assert facts(lives[0].state) == facts(lives[1].state)


def test_every_bulk_form_names_the_test_that_holds_it_equal_to_the_single_one() -> None:
    """So that whoever changes one finds it; the test stands in this folder."""
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    forms: list[Callable[..., object]] = [*BULK.values(), build_indexes]
    for form in forms:
        named = re.findall(r"`(test_\w+)`", form.__doc__ or "")
        assert named, form
        for name in named:
            assert f"def {name}(" in written, name


# -- batches ---------------------------------------------------------------------------------


def ids_of(life: Life, act: Ask) -> list[str]:
    """Returns the jobs of a DISPATCH of several."""
    match act:
        case ("handed out", offer, count, _):
            life.advance()
            return [row.id for row in select_run(life.state, offer, life.now_ms, count)]
        case ("any", picks, *_):
            rows = list(life.state.jobs.values())
            found = [row.id for pick in picks if (row := nth(rows, pick))]
            return found if picks[0] % 3 else [*found, "nobody"]
        case (kind, picks, *_):
            rows = rows_in(life.state, JobState.PENDING)
            if kind == "suspects":
                rows = [row for row in rows if row.suspect] or rows
            return list(dict.fromkeys(row.id for pick in picks if (row := nth(rows, pick))))
    raise AssertionError(act)


def test_a_batch_is_dispatched_where_each_in_turn_would_be_and_refused_whole_otherwise() -> None:
    met: Counter[str] = Counter()

    @budget(TIMES)
    @given(cases(("handed out", "pending", "suspects", "any")))
    def holds(case: Case) -> None:
        life, other = Life(case.past), Life(case.past)
        ids = ids_of(life, case.act)
        idle = case.act[1].idle if case.act[0] == "handed out" else case.act[3]
        prefetched = not idle
        assert ids_of(other, case.act) == ids
        before = facts(life.state)
        decision = life.decide(DispatchBatch(ids, 1, prefetched))
        assert facts(life.state) == before, "deciding changes nothing"
        events: list[AnyEvent] = []
        refusal: Rejection | None = None
        for job in ids:
            single = other.ask(Dispatch(job, 1, prefetched))
            if isinstance(single, Rejection):
                refusal = single
                break
            events += single
        if isinstance(decision, Rejection):
            met[decision.code] += 1
            assert refusal is not None
            if len(set(ids)) == len(ids):
                assert decision == refusal
            return
        met["dispatched", min(len(events), 3)] += 1  # type: ignore[index]
        assert refusal is None
        assert decision == events

        def at_once(life: Life) -> None:
            apply_all(life.state, decision, life.now_ms)

        def in_turn(life: Life) -> None:
            for job in ids:
                assert isinstance(life.ask(Dispatch(job, 1, prefetched)), list)

        check_same(case, at_once, in_turn)

    holds()
    reasons = {"no_such_job", "not_ready", "paused", "last_attempt", "suspect_waits", "repeated"}
    assert met.keys() >= {*reasons, "wrong_state", ("dispatched", 1), ("dispatched", 3)}


def test_one_suspect_of_a_batch_may_go_and_a_second_one_may_not() -> None:
    life = Life([])
    life.ask(Enqueue([job_of((n, 0, 0, ()), 0) for n in range(3)]))
    for job in ("job-0", "job-1"):
        life.ask(Dispatch(job, 1))
    life.ask(Boot(power_cut=True))
    life.now_ms += FAR_MS
    life.advance()
    refused = Rejection("suspect_waits", {"job": "job-1"})
    assert life.decide(DispatchBatch(["job-0", "job-2", "job-1"], 1)) == refused
    assert len(life.decide(DispatchBatch(["job-2", "job-1"], 1))) == 2  # type: ignore[arg-type]
    life.ask(Dispatch("job-0", 1))
    assert life.decide(DispatchBatch(["job-2", "job-1"], 1)) == refused


@budget(TIMES)
@given(cases(("completed",)))
def test_of_a_batch_that_completes_exactly_those_are_left_out_that_would_be_refused(
    case: Case,
) -> None:
    life, other = Life(case.past), Life(case.past)
    held = list(life.state.in_flight.values())
    done = [
        Done(
            "job-0" if pick % 7 == 1 else row.id,
            row.token + (pick % 7 == 2),
            b"%d" % pick,
        )
        for pick in case.act[1]
        if (row := nth(held, pick))
    ]
    decision = life.decide(CompleteBatch(done))
    assert isinstance(decision, list)
    events: list[AnyEvent] = []
    for each in done:
        single = other.ask(Complete(each.job, each.token, each.result))
        events += [] if isinstance(single, Rejection) else single
    assert decision == events

    def at_once(life: Life) -> None:
        apply_all(life.state, decision, life.now_ms)

    def in_turn(life: Life) -> None:
        for each in done:
            life.ask(Complete(each.job, each.token, each.result))

    check_same(case, at_once, in_turn)


# -- what a slot gets one after another ------------------------------------------------------


def test_a_run_for_a_slot_is_what_the_policy_gives_one_after_another() -> None:
    met: Counter[str] = Counter()

    @budget(TIMES)
    @given(cases(("handed out",)))
    def holds(case: Case) -> None:
        life, other = Life(case.past), Life(case.past)
        _, offer, count, _ = case.act
        life.advance()
        rows = select_run(life.state, offer, life.now_ms, count)
        assert len(rows) <= count
        assert all(row is life.state.jobs[row.id] for row in rows)
        assert bool(rows) == (other.select(offer) is not None)
        for row in rows:
            wanted = other.select(offer)
            assert wanted is not None
            assert row.id == wanted.id
            assert isinstance(other.ask(Dispatch(row.id, 1, prefetched=not offer.idle)), list)
        queues = sum(queue.ready > 0 for queue in life.state.queues.values())
        met["several"] += len(rows) > 1
        met["several, beside another queue"] += len(rows) > 1 and queues > 1
        met["one of several"] += len(rows) == 1 and count > 1

    holds()
    assert min(met.values()) > 3, met
