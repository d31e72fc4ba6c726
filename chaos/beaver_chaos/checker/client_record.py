"""The requests of producers and operators, and the answers they got.

An answer that never came is an unknown outcome and may have gone either way; what was
acknowledged may not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from beaver.structs.views import Accepted
from beaver_model.events import Requeued


class ClientRecord:
    """The requests of clients and operators, and their answers."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.acknowledged: dict[str, int] = {}
        """Seq of its ENQUEUE, by job."""
        self.refused: set[str] = set()
        """Jobs of which no request was acknowledged or lost: they cannot be in the log."""
        self.batches: list[tuple[str, ...]] = []
        """Jobs that came in together: all or none."""
        self.changes: Counter[tuple[str, str]] = Counter()
        """How often an (event's name, job) was acknowledged to an operator."""
        self.contradictions: list[str] = []
        self.given_up: set[str] = set()
        """Jobs that were refused and are not sent again."""
        self._created: set[str] = set()
        self._lost: set[str] = set()

    def sending(self, jobs: Sequence[str]) -> None:
        """Notes a new request, before it is sent for the first time."""
        self.sent.update(jobs)
        if len(jobs) > 1:
            self.batches.append(tuple(jobs))

    def acknowledge(self, answers: Iterable[Accepted]) -> None:
        """Notes the answer to a request."""
        for answer in answers:
            before = self.acknowledged.setdefault(answer.id, answer.seq)
            if before != answer.seq:
                self.contradictions.append(
                    f"job {answer.id} was acknowledged with seq {before}, then with {answer.seq}"
                )
            if answer.created:
                if answer.id in self._created:
                    self.contradictions.append(f"job {answer.id} was said to be created twice")
                self._created.add(answer.id)
            self.refused.discard(answer.id)

    def forget(self, job: str) -> None:
        """Notes that a job's tombstone is gone: the id may be acknowledged anew."""
        self.acknowledged.pop(job, None)
        self._created.discard(job)

    def refuse(self, jobs: Iterable[str]) -> None:
        """Notes that a request was refused: nothing of it was taken in."""
        self.refused.update(set(jobs) - self.acknowledged.keys() - self._lost)

    def give_up(self, jobs: Sequence[str]) -> None:
        """Notes that a request was refused and is not sent again, whatever became of it before."""
        self.refuse(jobs)
        self.given_up.update(jobs)

    def lose(self, jobs: Iterable[str]) -> None:
        """Notes that the answer did not come: the outcome is unknown."""
        self._lost.update(jobs)
        self.refused.difference_update(jobs)

    def change(self, event: str, job: str) -> None:
        """Notes that an operator's change was acknowledged.

        Cancelling twice is one change, and the second answer is like the first; each
        REQUEUE that was acknowledged is one of its own.
        """
        known = self.changes[event, job]
        self.changes[event, job] = known + 1 if event == Requeued.NAME else 1
