"""How attempts ended, found by their tokens: one reading of index and log for all of them.

A token is the seq of a DISPATCH, which names the job; the event that ended the attempt carries it
again.  What may not live here: what an outcome says (`server.http.reported`), a write, or a wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from beaver.history.database import Entry
from beaver.history.indexed_log import TAIL_BYTES_MAX, IndexedLog, asked
from beaver.inspect.listing import event_view
from beaver.journal.wal.following import Follower
from beaver.journal.wal.layout import Layout
from beaver.ports import Disk
from beaver.structs.questions import Ending, Endings, Known
from beaver_model.events import AnyEvent, AttemptEnded, Dispatched


def find_endings(disk: Disk, layout: Layout, tokens: Iterable[int], until_seq: int) -> Endings:
    """Returns what the log tells of attempts, in the order of their tokens.

    Those of which it tells nothing are left out: no attempt bears that token, or the log does not
    reach back to it.

    Args:
        disk: Where the store lies.
        layout: Its files.
        tokens: Of the attempts.
        until_seq: A seq that is durable.

    Raises:
        Corruption: The log is damaged.
    """
    wanted = sorted(set(tokens))

    def ask(log: IndexedLog) -> Endings:
        found = {ending.token: ending for ending in _indexed(log, wanted)}
        if log.indexed_seq < log.until_seq:
            _search_tail(log, set(wanted), found)
        return Endings([found[token] for token in sorted(found)], log.damaged)

    return asked(disk, layout, until_seq, ask)


def _indexed(log: IndexedLog, tokens: list[int]) -> Iterator[Ending]:
    """Yields the attempts that the index leads to; each block is read once."""
    index = log.index
    if index is None:
        return
    at: dict[int, Dispatched] = {}
    last_seq = 0
    for token in tokens:
        if not log.first_seq <= token <= log.indexed_seq:
            continue
        if token > last_seq:
            block = index.block(index.number_at(token))
            if block is None:
                continue
            last_seq = block.last_seq
            at = {s: e for s, _, e in log.reader.read(block) if isinstance(e, Dispatched)}
        if token in at:
            event = at[token]
            ending = Ending(token, event.job, event.worker)
            _end(ending, log.indexed(Known(event.job)))
            yield ending


def _end(ending: Ending, entries: Iterable[Entry]) -> None:
    for seq, time_ms, event in entries:
        if isinstance(event, AttemptEnded) and event.token == ending.token:
            ending.end = event_view(seq, time_ms, cast("AnyEvent", event))
            return


def _search_tail(log: IndexedLog, wanted: set[int], found: dict[int, Ending]) -> None:
    """Adds what stands behind the index: attempts that began there, and ends."""
    read = 0
    for commit in log.commits(Follower(log.disk, log.layout, log.position)):
        for seq, event in enumerate(commit.events, commit.first_seq):
            if isinstance(event, Dispatched):
                if seq in wanted:
                    found[seq] = Ending(seq, event.job, event.worker)
            elif isinstance(event, AttemptEnded) and event.token in found:
                _end(found[event.token], [(seq, commit.time_ms, event)])
        read += commit.end - commit.offset
        if read > TAIL_BYTES_MAX:
            return
