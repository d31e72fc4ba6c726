"""The real model as a space of states: each command on each state, asked once.

A state is thawed, the real `decide` and `apply` run on it, and what comes out is frozen and
seen through `rows`.  The answer is kept, so that the explorer pays for each pair of state
and command only once; every first answer is judged by the invariants and the properties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import beaver_model
from beaver_model import Offer, Rejection, State, freeze, thaw
from beaver_model.bounds import BATCH_JOBS_MAX, REMOTE_WORKERS_FROM
from beaver_model.commands import (
    REJECTIONS,
    AnyCommand,
    NewJob,
)
from beaver_model.events import AnyEvent
from beaver_model.freezing import Frozen
from beaver_model.legality import JudgedFrame
from beaver_model.rows import encode_spec
from beaver_model.states import JobState
from beaver_spec.explorer.asking import command_of
from beaver_spec.explorer.model_under_test import ModelUnderTest
from beaver_spec.explorer.probing import probes
from beaver_spec.explorer.properties import (
    SITUATIONS,
    Ask,
    Limits,
    Move,
    Wrong,
    check_step,
    why_not,
    why_not_several,
)
from beaver_spec.explorer.rows import (
    ABSENT,
    LATER_MS,
    NAMES,
    NOW_MS,
    OTHER,
    QUEUE,
    SAME,
    SECOND,
    JobRow,
    Model,
    concrete,
    job_spec,
    renamed,
    seen_buried,
    seen_rows,
    token_of,
)
from beaver_spec.explorer.scopes import Scope
from beaver_spec.explorer.steps import Step, Tally, effects_of, is_job_event, move_of


class Space:
    """The states of the model that one scope reaches, by number."""

    concrete = False

    def __init__(self, scope: Scope, model: ModelUnderTest | None = None) -> None:
        self.scope = scope
        self.model = model or ModelUnderTest()
        self.spec = job_spec(scope.attempts)
        self._raw_spec = encode_spec(self.spec)
        self._raw_second = encode_spec(job_spec(scope.attempts, SECOND))
        self._ordered = scope.tombstones_max is not None
        bound = scope.tombstones_max
        self._tombstones_max = len(NAMES) if bound is None else bound
        self.limits = Limits(scope.attempts, self._tombstones_max)
        self.tally = Tally()
        self.models: list[Model] = []
        self.rows: list[tuple[JobRow, ...]] = []
        self.row_ids: list[tuple[int, ...]] = []
        self._mids: dict[Model, int] = {}
        self._row_ids: dict[tuple[JobRow, int], int] = {}
        self._steps: dict[tuple[int, Ask], Step] = {}
        self._shuffled: dict[tuple[int, tuple[int, ...]], int] = {}
        one = NewJob("x", self._raw_spec, b"null", SAME)
        self.too_many: tuple[NewJob, ...] = (one,) * (BATCH_JOBS_MAX + 1)

    def start(self) -> int:
        """Returns the empty state, with its bounds set."""
        return self.intern(Model((ABSENT,) * self.scope.jobs, False, ()))

    # -- numbers for states ----------------------------------------------------------------------

    def intern(self, model: Model) -> int:
        """Returns the number of a state."""
        mid = self._mids.get(model)
        if mid is None:
            mid = self._mids[model] = len(self.models)
            self.models.append(model)
            self.rows.append(model.rows)
            ids, buried = self._row_ids, model.buried if self._ordered else ()
            self.row_ids.append(
                tuple(
                    # Where tombstones are evicted, their order tells jobs apart.
                    ids.setdefault((row, buried.index(n) if n in buried else -1), len(ids))
                    for n, row in enumerate(model.rows)
                )
            )
        return mid

    def models_count(self) -> int:
        """Returns how many states were met, those that differ by the names of jobs once."""
        found = zip(self.row_ids, self.models, strict=True)
        return len({(tuple(sorted(ids)), model.paused) for ids, model in found})

    def shuffle(self, mid: int, order: tuple[int, ...]) -> int:
        """Returns the state in which the job at place i was at `order[i]`."""
        key = (mid, order)
        other = self._shuffled.get(key)
        if other is None:
            model = self.models[mid]
            place_of = {old: new for new, old in enumerate(order)}
            buried = tuple(place_of[place] for place in model.buried)
            rows = tuple(model.rows[old] for old in order)
            if not self._ordered:
                buried = tuple(sorted(buried))
            other = self._shuffled[key] = self.intern(Model(rows, model.paused, buried))
        return other

    def relabel(self, mid: int, job: int, labels: dict[int, int]) -> int:
        """Returns the state with other labels for the tokens of one job."""
        model = self.models[mid]
        return self.intern(model._replace(rows=renamed(model.rows, job, labels)))

    def wake(self, mid: int, job: int) -> int:
        """Returns the state once the job's time has come, as `advance` leaves it."""
        model = self.models[mid]
        row = model.rows[job]
        if not row.waiting:
            return mid
        woken = model._replace(
            rows=(*model.rows[:job], row._replace(waiting=False), *model.rows[job + 1 :])
        )
        return self.intern(woken)

    # -- commands --------------------------------------------------------------------------------

    def step(self, mid: int, ask: Ask, worker: int = 1) -> Step:
        """Returns what a command leads to on a state."""
        step = self._steps.get((mid, ask))
        if step is None:
            step = self._steps[mid, ask] = self._take(mid, ask)
        return step

    def thawed(self, mid: int, *, indexed: bool = True) -> State:
        """Returns a state of the real model, with numbers that stand for the labels."""
        frozen = concrete(
            self.models[mid],
            self.spec,
            self._tombstones_max,
            second=self.scope.second,
            remote=self.scope.remote,
        )
        return thaw(*frozen, indexed=indexed)

    def _take(self, mid: int, ask: Ask) -> Step:
        model, state = self.models[mid], self.thawed(mid)
        labels = {
            token_of(place, row.label): row.label
            for place, row in enumerate(model.rows)
            if row.label
        }
        step, events, wrong = Step(mid), [], []
        self.tally.asked += 1
        decision = self.model.decide(state, self._command(ask), NOW_MS)
        if isinstance(decision, Rejection):
            step.refusal = decision.code
            step.wrong = tuple(self._check_refusal(model, ask, decision))
            tally = self.tally.refusals
            tally[decision.code] = tally.get(decision.code, 0) + 1
            return step
        events = list(decision)
        frame = JudgedFrame(NOW_MS, state.last_seq + 1, events)
        for event in events:
            reason = self.model.legal(state, event, frame)
            if reason is not None:
                step.wrong = (Wrong("events_are_legal", f"{event.NAME}: {reason}"),)
                return step
            self.model.apply(state, event, NOW_MS)
        if ask[0] == "dispatch" and events:
            assert isinstance(ask[2], int)
            step.label = ask[2]
            labels[state.last_seq] = step.label
        elif ask[0] == "dispatch-several":
            assert isinstance(ask[2], tuple)
            step.labels = ask[2][: len(events)]
            labels |= dict(enumerate(step.labels, state.last_seq + 1 - len(events)))
        rows = seen_rows(state, len(model.rows), NOW_MS, labels)
        after = Model(rows, state.queues[QUEUE].row.paused, seen_buried(state, ordered=True))
        step.moves = tuple(map(move_of, filter(is_job_event, events)))
        for message in self.model.violations(state):
            name, _, what = message.partition(": ")
            wrong.append(Wrong(name, what))
        wrong += self._check_replay(mid, events, freeze(state))
        wrong += check_step(model, ask, step.moves, after, self.limits)
        step.wrong = tuple(wrong)
        step.effects = tuple(effects_of(step.moves, model, after))
        self._meet(model, ask, step.moves, after)
        if not self._ordered:
            after = after._replace(buried=tuple(sorted(after.buried)))
        step.mid = self.intern(after)
        return step

    def _meet(self, before: Model, ask: Ask, moves: Sequence[Move], after: Model) -> None:
        met = self.tally.situations
        for words, situation in SITUATIONS.items():
            if situation(before, ask, moves, after):
                met[words] = met.get(words, 0) + 1

    def _check_refusal(self, model: Model, ask: Ask, refusal: Rejection) -> Sequence[Wrong]:
        if refusal.code not in REJECTIONS:
            return [Wrong("events_are_legal", f"the refusal {refusal.code} is not known")]
        if ask[0] == "dispatch":
            assert isinstance(ask[1], int)
            reason = why_not(model, ask[1], self.scope.attempts, prefetched=bool(ask[3]))
            if not reason:
                message = f"{NAMES[ask[1]]} could not be dispatched: {refusal.code}"
                return [Wrong("dispatch_is_guarded", message)]
        if ask[0] == "dispatch-several" and not why_not_several(model, ask, self.scope.attempts):
            message = f"one by one they could be dispatched: {refusal.code}"
            return [Wrong("several_are_as_each", message)]
        return ()

    def _check_replay(self, mid: int, events: list[AnyEvent], expected: Frozen) -> Sequence[Wrong]:
        """Applies the events again, on a state of its own, and once more on the result."""
        state = self.thawed(mid)
        first_seq = state.last_seq + 1
        for event in events:
            self.model.apply(state, event, self.now_ms())
        beaver_model.replay(state, first_seq, self.now_ms(), events)
        again = thaw(*expected)
        if freeze(state) != expected or freeze(again) != expected:
            return [Wrong("replay_agrees", "replaying the events gives another state")]
        if again.ledger != state.ledger or again.bytes != state.bytes:
            return [Wrong("replay_agrees", "thawing gives another ledger or another size")]
        real = beaver_model.apply, beaver_model.legal
        if (self.model.apply, self.model.legal) != real:
            return ()  # Broken by a test: runs do not know of it, and another property has to.
        for indexed in (True, False):
            together = self.thawed(mid, indexed=indexed)
            if indexed:
                self.model.at_once(together, events, self.now_ms())
            else:
                self.model.recover(together, first_seq, self.now_ms(), events)
            wrong = freeze(together) != expected or self.model.violations(together)
            if wrong or (together.ledger, together.bytes) != (state.ledger, state.bytes):
                how = "applying all events at once" if indexed else "recovery without indexes"
                return [Wrong("replay_agrees", f"{how} gives another state")]
        return ()

    # -- asking for the witnesses ----------------------------------------------------------------

    def probe(self, mid: int) -> list[Wrong]:
        """Puts every command to a state, also those that nobody would send."""
        wrong: list[Wrong] = []
        for ask in probes(self.rows[mid], several=self.scope.several, remote=self.scope.remote):
            wrong += self.step(mid, ask).wrong
        return [*wrong, *self._check_policy(mid)]

    def _check_policy(self, mid: int) -> Sequence[Wrong]:
        """The policy finds a job exactly where one may be dispatched, and only such a one."""
        model, state, now_ms = self.models[mid], self.thawed(mid), self.now_ms()
        while state.advance(now_ms):
            pass
        for idle in (True, False):
            row = self.model.select(state, Offer(idle=idle), now_ms)
            allowed = [
                NAMES[job]
                for job in range(len(model.rows))
                if not why_not(model, job, self.scope.attempts, prefetched=not idle)
            ]
            if (row is None) != (not allowed) or (row is not None and row.id not in allowed):
                message = f"it picked {row and row.id}, and {allowed or 'nothing'} may run"
                return [Wrong("policy_finds_work", message)]
        return ()

    # -- from the explorer's words to the model's ------------------------------------------------

    def token(self, job: int, label: int) -> int:
        """Returns the token that a label stands for."""
        return token_of(job, label)

    def due_ms(self, job: int) -> int:
        """Returns when a job that has to wait now becomes ready."""
        return LATER_MS

    def now_ms(self) -> int:
        """Returns the time at which commands are decided."""
        return NOW_MS

    def job(self, place: int, variant: str) -> NewJob:
        """Returns a request for the job at a place, as a client may send it."""
        digest = OTHER if variant == "other" else SAME
        run_at_ms = self.due_ms(place) if variant == "later" else 0
        raw = self._raw_second if variant == "second" else self._raw_spec
        return NewJob(NAMES[place], raw, b"null", digest, run_at_ms)

    def _command(self, ask: Ask, worker: int = 1) -> AnyCommand:
        return command_of(self, ask, worker + REMOTE_WORKERS_FROM * self.scope.remote)

    def jitter(self, job: int) -> float:
        """Returns the jitter with which a backoff of a job ends when it is to."""
        delay_ms = self.due_ms(job) - self.now_ms()
        return min(0.999999, (delay_ms + 0.5) / (2 * self.spec.backoff_base_ms))


STATE_NAMES: Final = {int(state): state.name for state in JobState}


def count_cells(space: Space, before: tuple[JobRow, ...], step: Step) -> None:
    """Adds the edges of a step to the tally."""
    after = space.rows[step.mid]
    for move in step.moves:
        key = (
            move.trigger.name,
            STATE_NAMES[before[move.job].state],
            STATE_NAMES[after[move.job].state],
        )
        space.tally.cells[key] = space.tally.cells.get(key, 0) + step.edges


def finish_tally(space: Space) -> Tally:
    """Returns what was met, with the edges counted by transition."""
    for (mid, _), step in space._steps.items():  # noqa: SLF001 - the other half of `Space`
        if step.edges:
            count_cells(space, space.rows[mid], step)
    return space.tally
