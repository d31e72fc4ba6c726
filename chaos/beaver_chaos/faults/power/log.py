"""The log of a store whose power is cut, followed from its first event on, though it is pruned.

While a server runs, commits that are durable are copied.  Behind a cut the disk is read; the
copy is believed only where the disk has pruned since, so it cannot hide what a cut took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from beaver.errors import Corruption
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits, segments
from beaver.store.recovery import read_store
from beaver.system.disk import SystemDisk
from beaver_chaos.checker.attempts import RunLine
from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.checker.history import Commit, HistoryCheck
from beaver_chaos.checker.stories import INDEX_DAMAGED, compare_stories
from beaver_chaos.program.process import ChaosFailure, PromiseBroken


class FollowedLog:
    """The log of one store as read so far."""

    def __init__(self, layout: Layout) -> None:
        self.history = HistoryCheck()
        self._layout = layout
        self._copy: list[Commit] = []
        """Commits behind what was read behind the last cut."""

    @property
    def first_seq(self) -> int:
        """First seq that is still in the log."""
        return segments(SystemDisk(), self._layout)[0].first_seq

    def copy(self, durable_seq: int) -> None:
        """Copies what is new in the log of a running server, up to a seq that is durable."""
        copied_seq = _last_seq(self._copy[-1]) if self._copy else self.history.last_seq
        with suppress(FileNotFoundError):  # A segment was sealed or pruned meanwhile: next time.
            for commit in read_commits(SystemDisk(), self._layout, copied_seq):
                if _last_seq(commit) > durable_seq:
                    return
                self._copy.append(commit)

    def check(
        self,
        witness: ClientRecord,
        account: Callable[[], Sequence[RunLine]],
        *,
        quiet: bool = False,
    ) -> None:
        """Reads on without a server, and compares with all that was seen.

        Args:
            witness: Requests and answers.
            account: Gives what workers have run.
            quiet: Everything has to be at rest.

        Raises:
            PromiseBroken: They do not fit, or the files are damaged.
            ChaosFailure: Too much was pruned to decide.
        """
        history, recovered = self.history, HistoryCheck()
        runs = account()
        try:
            self._read_on()
            recovered.begin(read_store(SystemDisk(), self._layout.path)[0])
        except Corruption as error:
            raise PromiseBroken(f"the store cannot be read: {error}") from error
        history.compare(witness)
        history.compare_state(recovered)
        told = compare_stories(SystemDisk(), self._layout)
        # A power cut may tear the index, which the next start makes anew.
        history.violations += [wrong for wrong in told if wrong != INDEX_DAMAGED]
        history.attempts.compare(runs, closed=quiet)
        history.attempts.compare_charges(account(), power_was_cut=True)
        if quiet:
            history.settle(witness)
        if history.violations:
            raise PromiseBroken("\n".join(history.violations), len(history.lost))

    def _read_on(self) -> None:
        history, first_seq = self.history, self.first_seq
        history.read(commit for commit in self._copy if _last_seq(commit) < first_seq)
        self._copy.clear()
        if first_seq > history.last_seq + 1:
            raise ChaosFailure(f"seq {history.last_seq + 1} was pruned before it was read")
        history.read(read_commits(SystemDisk(), self._layout, history.last_seq))


def _last_seq(commit: Commit) -> int:
    return commit[0] + len(commit[2]) - 1
