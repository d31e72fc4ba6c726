"""The world around the model: what is durable, unsynced, told, believed and held.

A world is six small numbers, each of which stands for a part:

    globe     phase of the server, whether a power cut is to be told, what is left of bounds
    durable   the state that the disk holds (a number of `space.Space`)
    batch     commands that wait for the sync, with the state after each
    workers   for each worker the attempts that it was given, in the order of their tokens
    stale     attempts whose workers outlived their server
    told      what clients know of each job

The state in memory is that after the last command of the batch.  Parts know which jobs they
name, so that jobs can be put into another order: `symmetry` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from beaver_spec.explorer.space import Space
from beaver_spec.explorer.steps import Effect

UP: Final = 0
BOOTING: Final = 1
DOWN: Final = 2
DRAINING: Final = 3
PHASES: Final = ("up", "booting", "down", "draining")

UNSENT: Final = 0
"""DISPATCH is in the batch: the worker knows nothing yet."""
SENT: Final = 1
"""The worker has it, unread."""
RUNNING: Final = 2
"""User code runs, and the slot says so."""
LOST: Final = 3
"""Unread, and the worker is gone; the server has still to give it back."""
SPENT: Final = 4
"""User code began and runs no longer; its DISPATCH is not resolved on disk yet."""
SPARED: Final = 5
"""It never began; its DISPATCH is not resolved on disk yet."""
ENDED_WELL: Final = 6
"""User code ended well; the outcome is on its way, and the server has not read it."""
ENDED_ILL: Final = 7
"""The same of an attempt that failed."""
FORMER: Final = 16
"""Added to the phases of a worker whose crew was replaced: it ends what it runs, and leaves."""
ENDED: Final = frozenset({ENDED_WELL, ENDED_ILL})
RUNS: Final = frozenset({RUNNING, RUNNING + FORMER})
HELD: Final = frozenset({UNSENT, SENT, LOST, *RUNS, *ENDED})
"""The attempts of a worker, as far as the server knows."""
BEGUN: Final = frozenset({SPENT, SPENT + FORMER, *RUNS, *ENDED})
"""User code began, and the slot says so."""


class Globe(NamedTuple):
    """The rest of a world: the phase, and what is left of each bound."""

    phase: int
    cut: bool
    """The machine went down, and no durable BOOT has told it yet."""
    crashes: int
    losses: int
    snoozes: int
    cancels: int
    requeues: int
    discards: int
    pauses: int
    resubmits: int
    drains: int
    children: int
    reloads: int


class Entry(NamedTuple):
    """A command in the batch."""

    mid: int
    """The state after it."""
    effects: tuple[Effect, ...]
    """Replies to send once it is durable."""


class HeldAttempt(NamedTuple):
    """An attempt that a worker was given."""

    job: int
    label: int
    phase: int


Worker = tuple[HeldAttempt, ...]
Stale = tuple[int, int]
Rest = tuple[int, int, int, int, int]
"""A world without what clients know: nothing that may happen depends on that."""
World = tuple[int, int, int, int, int, int]


def is_former(worker: Worker) -> bool:
    """True for a worker of a former crew: it is given nothing any more."""
    return any(held.phase >= FORMER for held in worker)


def as_former(worker: Worker) -> Worker:
    """Returns a worker whose crew was replaced; what it was not sent yet stays as it is."""
    return tuple(
        h._replace(phase=h.phase + FORMER) if h.phase in {RUNNING, SPENT, SPARED} else h
        for h in worker
    )


def rest_of(world: World) -> Rest:
    """Returns a world without what clients know."""
    globe, durable, batch, crew, stale, _ = world
    return globe, durable, batch, crew, stale


class Numbering:
    """Numbers for the values of one part, and what the symmetry asks of each."""

    def __init__(
        self,
        jobs: int,
        sign_of: Callable[[Any, int], Any],
        order_of: Callable[[Any, tuple[int, ...]], Any],
    ) -> None:
        """Makes an empty table.

        Args:
            jobs: How many jobs there are.
            sign_of: What a value says of the job at a place.
            order_of: A value with its jobs at other places: the job at place i goes to the
                i-th of these.
        """
        self.values: list[Any] = []
        self.signs: list[tuple[int, ...]] = []
        """For each value: a number for each job, equal where the part treats jobs alike."""
        self._jobs = jobs
        self._sign_of = sign_of
        self._order_of = order_of
        self._numbers: dict[Any, int] = {}
        self._signs: dict[Any, int] = {}
        self._shuffled: dict[tuple[int, tuple[int, ...]], int] = {}

    def number(self, value: Any) -> int:
        """Returns the number of a value."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
            known, signs = self._signs, (self._sign_of(value, job) for job in range(self._jobs))
            self.signs.append(tuple(known.setdefault(sign, len(known)) for sign in signs))
        return number

    def shuffle(self, number: int, order: tuple[int, ...]) -> int:
        """Returns the value in which the job at place i was at `order[i]`."""
        key = (number, order)
        other = self._shuffled.get(key)
        if other is None:
            place_of = [0] * len(order)
            for new, old in enumerate(order):
                place_of[old] = new
            value = self._order_of(self.values[number], tuple(place_of))
            other = self._shuffled[key] = self.number(value)
        return other


class Parts:
    """The tables of all parts of the worlds of one exploration."""

    def __init__(self, space: Space) -> None:
        jobs = space.scope.jobs
        self.space = space
        self.globes = Numbering(jobs, lambda _value, _job: 0, lambda value, _: value)
        self.batches = Numbering(jobs, self._batch_sign, self._shuffle_batch)
        self.tolds = Numbering(jobs, lambda told, job: told[job], _shuffle_told)
        self.crews = Numbering(jobs, _crew_sign, _shuffle_crew)
        self.stales = Numbering(jobs, _stale_sign, _shuffle_stale)
        self.globe: Callable[[Globe], int] = self.globes.number
        self.batch: Callable[[tuple[Entry, ...]], int] = self.batches.number
        self.told: Callable[[tuple[int, ...]], int] = self.tolds.number

    def crew(self, value: Iterable[Worker]) -> int:
        """Returns the number of the workers.  Their order is for the caller to choose."""
        return self.crews.number(tuple(value))

    def stale(self, value: Iterable[Stale]) -> int:
        """Returns the number of attempts that outlived their server."""
        return self.stales.number(tuple(sorted(value)))

    def memory(self, rest: Rest | World) -> int:
        """Returns the state that the server has in memory."""
        batch = self.batches.values[rest[2]]
        return batch[-1].mid if batch else rest[1]

    def _batch_sign(self, batch: tuple[Entry, ...], job: int) -> Any:
        rows = self.space.row_ids
        return tuple(
            (rows[entry.mid][job], tuple(e for j, e in entry.effects if j == job))
            for entry in batch
        )

    def _shuffle_batch(self, batch: tuple[Entry, ...], place_of: tuple[int, ...]) -> Any:
        order = tuple(sorted(range(len(place_of)), key=place_of.__getitem__))
        return tuple(
            Entry(
                self.space.shuffle(entry.mid, order),
                tuple((place_of[job], effect) for job, effect in entry.effects),
            )
            for entry in batch
        )


def _crew_sign(workers: tuple[Worker, ...], job: int) -> Any:
    """Where a job stands with the workers, whichever worker it is."""
    return tuple(
        sorted(
            (index, *((h.label, h.phase) for h in worker))
            for worker in workers
            for index, held in enumerate(worker)
            if held.job == job
        )
    )


def _stale_sign(stale: tuple[Stale, ...], job: int) -> Any:
    return tuple(label for j, label in stale if j == job)


def _shuffle_told(told: tuple[int, ...], place_of: tuple[int, ...]) -> tuple[int, ...]:
    result = [0] * len(told)
    for job, bits in enumerate(told):
        result[place_of[job]] = bits
    return tuple(result)


def _shuffle_crew(workers: tuple[Worker, ...], place_of: tuple[int, ...]) -> Any:
    return tuple(
        tuple(HeldAttempt(place_of[held.job], held.label, held.phase) for held in worker)
        for worker in workers
    )


def _shuffle_stale(stale: tuple[Stale, ...], place_of: tuple[int, ...]) -> Any:
    return tuple(sorted((place_of[job], label) for job, label in stale))


def killed(worker: Worker) -> Worker:
    """Returns a worker that was killed: what it had not read is to be given back."""
    return tuple(
        held._replace(phase=LOST) if held.phase in {UNSENT, SENT} else held for held in worker
    )


def set_phase(worker: Worker, index: int, phase: int) -> Worker:
    """Returns a worker with one attempt in another phase."""
    return (*worker[:index], worker[index]._replace(phase=phase), *worker[index + 1 :])
