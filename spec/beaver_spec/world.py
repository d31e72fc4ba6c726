"""The world around the model: what is durable, unsynced, told, believed and held.

A world is six small numbers, each of which stands for a part:

    globe     phase of the server, whether a power cut is to be told, what is left of bounds
    durable   the state that the disk holds (a number of `space.Space`)
    batch     commands that wait for the sync, with the state after each
    told      what clients know of each job
    workers   for each worker the attempts that it was given, in the order of their tokens
    stale     attempts whose workers outlived their server

The state in memory is that after the last command of the batch.  Parts know which jobs they
name, so that jobs can be put into another order: that is the symmetry reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, groupby, permutations, product
from typing import Any, Final, NamedTuple

from beaver_spec.space import Effect, Space

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
HELD: Final = frozenset({UNSENT, SENT, RUNNING, LOST})


class Globe(NamedTuple):
    """What belongs to no job and no worker: the phase, and what is left of each bound."""

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


class Entry(NamedTuple):
    """A command in the batch."""

    mid: int
    """The state after it."""
    effects: tuple[Effect, ...]
    """What is told once it is durable."""


class Held(NamedTuple):
    """An attempt that a worker was given."""

    job: int
    label: int
    phase: int


Worker = tuple[Held, ...]
Stale = tuple[int, int]
World = tuple[int, int, int, int, int, int]


class Table:
    """Numbers for the values of one part, and what the explorer asks of each."""

    def __init__(self, jobs: int, order_of: Callable[[Any, tuple[int, ...]], Any]) -> None:
        self.values: list[Any] = []
        self.signs: list[tuple[int, ...]] = []
        """For each value: a number for each job, equal where the part treats jobs alike."""
        self._jobs = jobs
        self._order_of = order_of
        self._numbers: dict[Any, int] = {}
        self._signs: dict[Any, int] = {}
        self._shuffled: dict[tuple[int, tuple[int, ...]], int] = {}

    def number(self, value: Any, signs: Callable[[Any, int], Any]) -> int:
        """Returns the number of a value."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
            known = self._signs
            self.signs.append(
                tuple(known.setdefault(signs(value, job), len(known)) for job in range(self._jobs))
            )
        return number

    def shuffle(self, number: int, order: tuple[int, ...], signs: Callable[[Any, int], Any]) -> int:
        """Returns the value in which the job at place i was at `order[i]`."""
        key = (number, order)
        other = self._shuffled.get(key)
        if other is None:
            place_of = [0] * len(order)
            for new, old in enumerate(order):
                place_of[old] = new
            value = self._order_of(self.values[number], tuple(place_of))
            other = self._shuffled[key] = self.number(value, signs)
        return other


class Parts:
    """The tables of all parts of the worlds of one exploration."""

    def __init__(self, space: Space) -> None:
        jobs = space.scope.jobs
        self.space = space
        self.globes = Table(jobs, lambda value, _: value)
        self.batches = Table(jobs, self._shuffle_batch)
        self.tolds = Table(jobs, _shuffle_told)
        self.crews = Table(jobs, _shuffle_crew)
        self.stales = Table(jobs, _shuffle_stale)
        self._ordered: dict[Any, tuple[int, ...] | None] = {}
        self._lined_up: dict[int, int] = {}

    def globe(self, value: Globe) -> int:
        return self.globes.number(value, _no_sign)

    def batch(self, value: tuple[Entry, ...]) -> int:
        return self.batches.number(value, self._batch_sign)

    def told(self, value: tuple[int, ...]) -> int:
        return self.tolds.number(value, _told_sign)

    def crew(self, value: Iterable[Worker]) -> int:
        """Returns the number of the workers.  Their order is for the caller to choose."""
        return self.crews.number(tuple(value), _crew_sign)

    def stale(self, value: Iterable[Stale]) -> int:
        return self.stales.number(tuple(sorted(value)), _stale_sign)

    def memory(self, world: World) -> int:
        """Returns the state that the server has in memory."""
        batch = self.batches.values[world[2]]
        return batch[-1].mid if batch else world[1]

    # -- symmetry ------------------------------------------------------------------------------

    def canonical(self, world: World) -> World:
        """Returns the world with its jobs and workers in the one order that stands for all."""
        globe, durable, batch, told, crew, stale = world
        crew = self._line_up(crew)
        space = self.space
        keys = tuple(
            zip(
                space.row_ids[durable],
                self.batches.signs[batch],
                self.tolds.signs[told],
                self.crews.signs[crew],
                self.stales.signs[stale],
                strict=True,
            )
        )
        order = self._order(keys, crew)
        if order is None:
            return (globe, durable, batch, told, crew, stale)
        return (
            globe,
            space.shuffle(durable, order),
            self.batches.shuffle(batch, order, self._batch_sign),
            self.tolds.shuffle(told, order, _told_sign),
            self._line_up(self.crews.shuffle(crew, order, _crew_sign)),
            self.stales.shuffle(stale, order, _stale_sign),
        )

    def _line_up(self, crew: int) -> int:
        """Returns the workers in the order that stands for all."""
        number = self._lined_up.get(crew)
        if number is None:
            workers = self.crews.values[crew]
            number = self._lined_up[crew] = self.crew(sorted(workers, key=_worker_key))
        return number

    def _order(self, keys: tuple[tuple[int, ...], ...], crew: int) -> tuple[int, ...] | None:
        """Returns the places in the order that stands for all; `None` where they stand so.

        Jobs with different keys stand in the order of their keys.  Jobs with the same key
        differ at most by whom they share a worker with, so the order of these that gives
        the least list of workers stands for all.
        """
        try:
            return self._ordered[keys, crew]
        except KeyError:
            pass
        places = sorted(range(len(keys)), key=keys.__getitem__)
        nowhere = self.crews.signs[self.crew(((),) * len(self.crews.values[crew]))]
        choices: list[list[tuple[int, ...]]] = []
        for key, found in groupby(places, key=keys.__getitem__):
            group = tuple(found)
            with_workers = key[3] != nowhere[0]
            choices.append(list(permutations(group)) if with_workers else [group])
        orders = [tuple(chain(*choice)) for choice in product(*choices)]

        def crew_in(order: tuple[int, ...]) -> tuple[Worker, ...]:
            shuffled = self._line_up(self.crews.shuffle(crew, order, _crew_sign))
            value: tuple[Worker, ...] = self.crews.values[shuffled]
            return value

        best = orders[0] if len(orders) == 1 else min(orders, key=crew_in)
        result = None if best == tuple(range(len(keys))) else best
        self._ordered[keys, crew] = result
        return result

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


def _no_sign(_: Any, job: int) -> Any:
    return 0


def _told_sign(told: tuple[int, ...], job: int) -> Any:
    return told[job]


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


def _worker_key(worker: Worker) -> Any:
    """Workers in an order that does not depend on the places of jobs, where it can be."""
    return (tuple((held.phase, held.label) for held in worker), worker)


def _shuffle_told(told: tuple[int, ...], place_of: tuple[int, ...]) -> tuple[int, ...]:
    result = [0] * len(told)
    for job, bits in enumerate(told):
        result[place_of[job]] = bits
    return tuple(result)


def _shuffle_crew(workers: tuple[Worker, ...], place_of: tuple[int, ...]) -> Any:
    return tuple(
        tuple(Held(place_of[held.job], held.label, held.phase) for held in worker)
        for worker in workers
    )


def _shuffle_stale(stale: tuple[Stale, ...], place_of: tuple[int, ...]) -> Any:
    return tuple(sorted((place_of[job], label) for job, label in stale))
