"""Questions of a server to its helper about the past, and the answers."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from beaver.structs.views import EventView


class Known(msgspec.Struct, array_like=True, gc=False):
    """A job that is asked for, and what the state knows of it."""

    job: str
    seq: int = 0
    """Seq of its ENQUEUE; 0 where the state does not know it."""
    ended: bool = False
    """True for a finished job: the search stops once its end is found."""


class Stories(msgspec.Struct, array_like=True):
    """The events of some jobs, and how far they go."""

    by_job: dict[str, list[EventView]]
    """The events of each job.  A job is left out where the answer would be too long: ask again."""
    as_of_seq: int
    """Every event up to this seq is included."""
    first_seq: int
    """Events of finished jobs are known from here on."""
    damaged: bool
    """The index is damaged, and was not used."""


class Told(NamedTuple):
    """The events of one job."""

    events: list[EventView]
    as_of_seq: int
    """No event up to this seq is missing."""
    first_seq: int
    """Events of finished jobs are kept from here on."""


class Ending(msgspec.Struct, array_like=True):
    """What the log tells of an attempt."""

    token: int
    job: str
    worker: int
    end: EventView | None = None
    """The event that ended it."""


class Endings(msgspec.Struct, array_like=True):
    """What the log tells of some attempts."""

    found: list[Ending]
    """In the order of their tokens; one of which nothing is told is left out."""
    damaged: bool
    """The index is damaged, and was not used."""
    next_token: int = 0
    """The answer would be too long with this token and those above: ask for them again."""


class WalkedEvent(msgspec.Struct, array_like=True, gc=False):
    """An event of the log, with what it is filtered by."""

    seq: int
    event: str
    job: str
    """Empty where it belongs to none."""
    queue: str
    """Queue of the job, if known."""
    json: msgspec.Raw


class Walked(msgspec.Struct, array_like=True):
    """Events of the log in order."""

    events: list[WalkedEvent]
    come_to: int
    """Every event up to this seq was examined."""
    first_seq: int
    """Where the log begins."""


class Wanted(msgspec.Struct, array_like=True):
    """Which jobs are wanted, by their ENQUEUE; empty and 0 where it does not matter."""

    queue: str = ""
    task: str = ""
    tag: str = ""
    parent: str = ""
    since_ms: int = 0
    until_ms: int = 0
    """Those that came in before."""


class Where(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Which jobs an action on many is for: a filter at least.  `None` where it does not matter."""

    state: str | None = None
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    parent: str | None = None
    text: str | None = None
    """Stands in the payload or the error."""
    since_ms: int | None = None
    """Those that came in then or later."""
    until_ms: int | None = None
    """Those that came in before."""


class CameIn(msgspec.Struct, array_like=True):
    """Jobs in the order in which they came in."""

    jobs: list[tuple[int, str]]
    """Seq and id."""
    come_to: int
    """Every job up to this seq was examined."""
    first_seq: int
    """Where the log begins."""


class Search(msgspec.Struct, array_like=True):
    """Which finished jobs are wanted."""

    word: str
    """`completed` or `discarded`."""
    queue: str = ""
    task: str = ""
    tag: str = ""
    since_ms: int = 0
    """Those that ended then or later."""
    until_ms: int = 0
    """Those that ended before; 0 for no bound."""
    after_seq: int = 0
    """Those that ended behind this seq."""
    limit: int = 100


class Listed(msgspec.Struct, array_like=True):
    """A step of a search for finished jobs."""

    views: msgspec.Raw
    """JSON: an array of `JobView`, in the order in which they ended."""
    count: int
    next_seq: int
    """Where to search on (as `after_seq`); 0 where the end was reached."""
    as_of_seq: int
    damaged: bool
