"""Worlds by number, and the one world that stands for all that differ by names alone.

Jobs of one scope are alike, and so are its workers.  Of all the worlds that become one
another by exchanging names the explorer keeps one, the *canonical* one: jobs stand in the
order of their signs, workers in the order of what they hold.

A world is one number here, its *key*: the number of its rest, and that of what clients know.
Most worlds share their rest with others (four of five do), and the rest alone decides what may
come next.
"""

from __future__ import annotations

from itertools import chain, groupby, permutations, product
from typing import Any, Final

from beaver_spec.explorer.world import Parts, Rest, Worker, World, rest_of

TOLD_BITS: Final = 20
TOLD_MASK: Final = (1 << TOLD_BITS) - 1

Order = tuple[int, ...]
"""At each new place, the old place of the job that goes there."""
Sign = tuple[int, int, int, bool]
"""All that a rest says of one job: numbers for its row, the batch, and everything; held or not."""


class Symmetry:
    """The numbers of rests and worlds of one exploration."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.space = parts, parts.space
        self.rests: list[Rest] = []
        self._numbers: dict[Rest, int] = {}
        self._shapes: list[int] = []
        """For each rest: the number of its signs and crew, all that an order depends on."""
        self._signs: list[tuple[tuple[Sign, ...], int]] = []
        self._has_twins: list[bool] = []
        """For each shape: do two jobs have the same sign?"""
        self._shape_numbers: dict[tuple[tuple[Sign, ...], int], int] = {}
        self._sign_numbers: dict[tuple[int, ...], int] = {}
        self._orders: dict[int, Order | None] = {}
        self._shuffled: dict[tuple[int, Order], int] = {}
        self._lined_up: dict[int, int] = {}
        nobody = parts.crew(((),) * parts.space.scope.workers)
        self._unheld = parts.crews.signs[nobody][0]

    # -- keys ------------------------------------------------------------------------------------

    def rest(self, rest: Rest) -> int:
        """Returns the number of a rest, with its workers lined up."""
        globe, durable, batch, crew, stale = rest
        lined_up = (globe, durable, batch, self.line_up(crew), stale)
        number = self._numbers.get(lined_up)
        if number is None:
            number = self._numbers[lined_up] = len(self.rests)
            self.rests.append(lined_up)
            self._shapes.append(self._shape(lined_up))
        return number

    def key(self, world: World) -> int:
        """Returns the key of a world, with its workers lined up."""
        return self.rest(rest_of(world)) << TOLD_BITS | world[5]

    def world(self, key: int) -> World:
        """Returns the world of a key."""
        return (*self.rests[key >> TOLD_BITS], key & TOLD_MASK)

    # -- the canonical one -----------------------------------------------------------------------

    def canonical(self, world: World) -> World:
        """Returns the world with its jobs and workers in the one order that stands for all."""
        return self.world(self.canonical_key(self.key(world)))

    def canonical_key(self, key: int) -> int:
        """Returns the key of the canonical world."""
        number, told = key >> TOLD_BITS, key & TOLD_MASK
        shape = self._shapes[number]
        # Where the rest tells all jobs apart, what clients know does not matter.
        asked = shape << TOLD_BITS | (told if self._has_twins[shape] else 0)
        try:
            order = self._orders[asked]
        except KeyError:
            order = self._orders[asked] = self._order(shape, told)
        if order is None:
            return key
        other = self._shuffled.get((number, order))
        if other is None:
            other = self._shuffled[number, order] = self._shuffle(self.rests[number], order)
        return other << TOLD_BITS | self.parts.tolds.shuffle(told, order)

    def line_up(self, crew: int) -> int:
        """Returns the workers in the order that stands for all."""
        number = self._lined_up.get(crew)
        if number is None:
            workers = self.parts.crews.values[crew]
            number = self._lined_up[crew] = self.parts.crew(sorted(workers, key=_worker_key))
        return number

    def _shuffle(self, rest: Rest, order: Order) -> int:
        globe, durable, batch, crew, stale = rest
        parts = self.parts
        shuffled = (
            globe,
            self.space.shuffle(durable, order),
            parts.batches.shuffle(batch, order),
            parts.crews.shuffle(crew, order),
            parts.stales.shuffle(stale, order),
        )
        return self.rest(shuffled)

    def _shape(self, rest: Rest) -> int:
        """Returns the number of what tells the jobs of a rest apart, and of its crew."""
        _, durable, batch, crew, stale = rest
        parts, known = self.parts, self._sign_numbers
        signs: list[Sign] = []
        for sign in zip(
            self.space.row_ids[durable],
            parts.batches.signs[batch],
            parts.crews.signs[crew],
            parts.stales.signs[stale],
            strict=True,
        ):
            number = known.setdefault(sign, len(known))
            # The row first: then few states of the model are met in more than one order.
            signs.append((*sign[:2], number, sign[2] != self._unheld))
        shape = (tuple(signs), crew)
        known_shape = self._shape_numbers.get(shape)
        if known_shape is not None:
            return known_shape
        self._shape_numbers[shape] = len(self._signs)
        self._signs.append(shape)
        self._has_twins.append(len(set(signs)) < len(signs))
        return len(self._signs) - 1

    def _order(self, shape: int, told: int) -> Order | None:
        """Returns the places in the order that stands for all; `None` where they stand so.

        Jobs with different signs stand in the order of their signs.  Jobs with the same sign
        differ at most by whom they share a worker with, so the order of these that gives
        the least list of workers stands for all.
        """
        signs, crew = self._signs[shape]
        keys = tuple(zip(signs, self.parts.tolds.signs[told], strict=True))
        places = sorted(range(len(keys)), key=keys.__getitem__)
        choices: list[list[Order]] = []
        for key, found in groupby(places, key=keys.__getitem__):
            group = tuple(found)
            (*_, held), _ = key
            choices.append(list(permutations(group)) if held else [group])
        orders = [tuple(chain(*choice)) for choice in product(*choices)]

        def crew_in(order: Order) -> tuple[Worker, ...]:
            shuffled = self.line_up(self.parts.crews.shuffle(crew, order))
            value: tuple[Worker, ...] = self.parts.crews.values[shuffled]
            return value

        best = orders[0] if len(orders) == 1 else min(orders, key=crew_in)
        return None if best == tuple(range(len(keys))) else best


def _worker_key(worker: Worker) -> Any:
    """Workers in an order that does not depend on the places of jobs, where it can be."""
    return (tuple((held.phase, held.label) for held in worker), worker)
