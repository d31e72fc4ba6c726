"""A log that is told event by event, and one way to break the law in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tests.foreign.wire import Log, pack

STORE: Final = bytes(range(16))
BEGIN_MS: Final = 1_700_000_000_000
DIGEST: Final = b"digest-of-12"
OPTIONS: Final[dict[str, Any]] = {
    "task": "echo", "queue": "default", "priority": 5, "timeout_ms": 600_000, "max_attempts": 5,
    "backoff_kind": 2, "backoff_base_ms": 1_000, "backoff_max_ms": 3_600_000,
    "backoff_jitter": 0.1, "origin": 0,
}  # fmt: skip


class Story:
    """A log that is told event by event; it begins as every store does."""

    def __init__(self, *, boot: bool = True) -> None:
        self.log = Log(STORE)
        self.now_ms = BEGIN_MS
        if boot:
            self.boot(1)

    def tell(self, *events: Any, **how: Any) -> int:
        """Adds a commit, a second after the last one; returns the seq of its first event."""
        first_seq, self.now_ms = self.log.next_seq, self.now_ms + 1_000
        self.log.commit(self.now_ms, *events, **how)
        return first_seq

    def boot(self, epoch: int, *fates: Any, power_cut: bool = False) -> int:
        return self.tell(booted(epoch, power_cut=power_cut), *fates)

    def enqueue(self, job: str = "a", run_at_ms: int = 0, **options: Any) -> int:
        return self.tell(enqueued(job, run_at_ms, **options))

    def dispatch(self, job: str = "a", worker: int = 1) -> int:
        """Returns the token."""
        return self.tell([2, job, worker])

    def running(self, job: str = "a", **options: Any) -> int:
        """Enqueues and dispatches a job; returns the token."""
        self.enqueue(job, **options)
        return self.dispatch(job)


def enqueued(
    job: Any, run_at_ms: Any = 0, parent: Any = "", tags: Any = (), **options: Any
) -> list[Any]:
    spec = options.pop("spec", None)
    digest, payload = options.pop("digest", DIGEST), options.pop("payload", b"null")
    if spec is None:
        spec = pack(list({**OPTIONS, **options}.values()))
    return [1, job, spec, payload, digest, run_at_ms, parent, list(tags)]


def booted(epoch: int, *, power_cut: bool = False) -> list[Any]:
    return [13, epoch, power_cut, "host:1"]


Forge = Callable[[Story], int]


class Kind(NamedTuple):
    """One way to break the law."""

    name: str
    forge: Forge
    """Tells the story to its break; returns the seq at which that has to be found."""
    words: str
    """Part of the reason."""
    boots: bool = True


class Kinds(list[Kind]):
    """The kinds of one module."""

    def kind(self, words: str, *, boots: bool = True) -> Callable[[Forge], Forge]:
        """Adds the function that it decorates."""

        def keep(forge: Forge) -> Forge:
            self.append(Kind(forge.__name__, forge, words, boots))
            return forge

        return keep
