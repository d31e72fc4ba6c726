"""Rot, cuts and strangers: what is done to a copy of a store, and what must follow.

The rule in one sentence: damage to the last frame of the log, or behind it, is a torn tail,
which is cut and kept; damage before it is refused, and nothing is changed.
"""

from __future__ import annotations

from typing import NamedTuple

from beaver.errors import Corruption
from beaver.journal.codec import encode_commit
from beaver.journal.wal.format import (
    FILE_HEADER_BYTES,
    FileHeader,
    encode_file_header,
    encode_frame,
    header_seed,
)
from beaver.journal.wal.log import Wal
from beaver.journal.wal.reader import SegmentInfo, segments
from beaver.journal.wal.scan import SegmentScan
from beaver.store.rebuild import Recovered
from beaver.store.recovery import read_store
from beaver_chaos.sim.disk import SimDisk
from beaver_model import State, decide, fingerprint
from beaver_model.commands import Boot
from beaver_model.events import AnyEvent
from tests.stateful.running import SEEN
from tests.stateful.stores import DATA, MovedClock, append, open_sim

STRANGERS = ("stale frame", "foreign segment", "missing segment", "cut segment")


class Place(NamedTuple):
    """A frame on disk."""

    start: int
    end: int
    first_seq: int
    crc_before: int


class Segment(NamedTuple):
    """A segment with its frames."""

    info: SegmentInfo
    frames: list[Place]
    next_seq: int
    crc: int


class Victim:
    """A copy of a store, at rest, that is to be damaged."""

    def __init__(self, disk: SimDisk, clock: MovedClock) -> None:
        self.disk, self.clock = disk.copy(), clock
        state, report = read_store(self.disk, "data", clock=clock)
        self.print, self.last_seq = fingerprint(state), state.last_seq
        self.next_commit = encode_commit(state.time_ms, boot_of(state))
        """What could follow, as far as the events go."""
        self.base_seq = report.snapshot_seq
        self.segments = [_segment(self.disk, info) for info in segments(self.disk, DATA)]
        reached = [s for s in self.segments if s.info.first_seq <= self.base_seq + 1]
        self.read = self.segments[self.segments.index(reached[-1]) :]
        """The segments that a recovery reads; of those before, the headers only."""

    @property
    def log(self) -> Segment:
        return self.segments[-1]

    def files(self) -> dict[str, bytes]:
        paths = [f"data/{name}" for name in self.disk.listdir("data") if name != "archive"]
        paths += [f"data/archive/{name}" for name in self.disk.listdir("data/archive")]
        return {path: self.disk.contents(path) for path in paths}

    def must_refuse(self, what: str) -> None:
        """A start names corruption and changes nothing."""
        before = self.files()
        try:
            opened = open_sim(self.disk, self.clock, create=False)
        except Corruption:
            assert self.files() == before, f"{what}: refused, and changed all the same"
            SEEN.witness(f"refused: {what}")
            return
        is_same = fingerprint(opened.state) == self.print
        state = "as it was" if is_same else "another"
        raise AssertionError(f"{what}: not refused, and the state is {state}")

    def must_go_on(self, expected: str, what: str) -> Recovered[Wal]:
        """A start gives that state, and appending works; what it appends is there again."""
        opened = open_sim(self.disk, self.clock, create=False)
        assert fingerprint(opened.state) == expected, f"{what}: another state"
        epoch, events = opened.state.epoch, boot_of(opened.state)
        seq = opened.state.last_seq + len(events)
        append(opened.journal, opened.state.time_ms, events)
        self.disk.kill()
        again = open_sim(self.disk, self.clock, create=False)
        assert (again.state.last_seq, again.state.epoch) == (seq, epoch + 1), what
        SEEN.witness(f"went on: {what}")
        return opened


def boot_of(state: State) -> list[AnyEvent]:
    """What the next start logs: a BOOT, and behind it the fate of what was in flight."""
    events = decide(state, Boot(), state.time_ms)
    assert isinstance(events, list)
    return events


def _segment(disk: SimDisk, info: SegmentInfo) -> Segment:
    file = disk.open(info.path)
    scan = SegmentScan(file, info.path, info.header)
    frames, crc = [], info.header.previous_crc
    for frame in scan:
        frames.append(Place(frame.offset, scan.offset, frame.first_seq, crc))
        crc = frame.crc
    file.close()
    return Segment(info, frames, scan.next_seq, crc)


def rot_at_the_end(victim: Victim, where: int, bit: int, prints: dict[int, str]) -> None:
    """One bit of the last frame, or of the zero bytes behind it: a torn tail."""
    disk, log = victim.disk, victim.log
    size = len(disk.contents(DATA.log))
    start = log.frames[-1].start if log.frames else FILE_HEADER_BYTES
    # Rather in the frame than in the many zero bytes behind it.
    end = log.frames[-1].end if log.frames and where % 4 else min(size, start + 8_192)
    offset = start + where % (end - start)
    in_frame = bool(log.frames) and offset < log.frames[-1].end
    disk.flip(DATA.log, offset, bit)
    damaged = disk.contents(DATA.log)
    cut = log.frames[-1].start if in_frame else (log.frames[-1].end if log.frames else start)
    left_seq = log.frames[-1].first_seq - 1 if in_frame else victim.last_seq
    if left_seq < victim.base_seq:
        victim.must_refuse("a log shorter than its snapshot")
        return
    what = "rot of the last frame" if in_frame else "rot behind the last frame"
    report = victim.must_go_on(prints[left_seq], what).report
    assert report.torn_tail_bytes > 0, "a torn tail is reported"
    kept = disk.contents(report.broken)
    assert kept == damaged[cut : cut + len(kept)], "the tail is kept as it was"
    assert not damaged[cut + len(kept) :].strip(b"\0"), "all of the tail is kept"


def rot_before_the_end(victim: Victim, pick: int, where: int, bit: int) -> None:
    """One bit of a frame that others follow, or of a header."""
    places = [
        (segment, place)
        for segment in victim.segments
        for place in [*segment.frames[: None if segment.info.archived else -1], None]
    ]
    segment, place = places[pick % len(places)]
    start, end = (0, FILE_HEADER_BYTES) if place is None else place[:2]
    victim.disk.flip(segment.info.path, start + where % (end - start), bit)
    if place is None:
        victim.must_refuse("rot of a header")
    elif segment in victim.read:
        victim.must_refuse("rot before the last frame")
    else:
        victim.must_go_on(victim.print, "rot of what nothing reads any more")


def rot_of_a_snapshot(victim: Victim, older: bool, where: int, bit: int) -> None:
    """One bit of a snapshot: with the other one, or the log, the state is the same.

    A crash between the two renames of a new snapshot leaves the older one alone until the next is
    taken; where the log does not reach back to the beginning, nothing stands in for it.
    """
    path, other = DATA.snapshot, DATA.snapshot_old
    if older:
        path, other = other, path
    if not victim.disk.exists(path):
        return
    victim.disk.flip(path, where % len(victim.disk.contents(path)), bit)
    if victim.disk.exists(other) or victim.segments[0].info.first_seq == 1:
        victim.must_go_on(victim.print, "rot of a snapshot")
    else:
        victim.must_refuse("rot of the only snapshot")


def stranger(victim: Victim, kind: str) -> None:
    """What is whole by itself and does not follow from what stands before it."""
    disk, log = victim.disk, victim.log
    contents, header = disk.contents(DATA.log), log.info.header
    if kind == "stale frame":
        # As if an older frame came back where the next one goes.
        end = log.frames[-1].end if log.frames else FILE_HEADER_BYTES
        frame, _ = encode_frame(
            victim.next_commit,
            1,
            log.next_seq,
            0,
            previous_crc=log.crc ^ 1,
            seed=header_seed(header.store),
        )
        disk.put(DATA.log, contents[:end] + frame + bytes(8_192))
        victim.must_refuse(kind)
    elif kind == "foreign segment" and len(victim.read) > 1:
        wrong = FileHeader(header.store, header.first_seq, header.previous_crc ^ 1)
        disk.put(DATA.log, encode_file_header(wrong) + bytes(8_192))
        victim.must_refuse(kind)
    elif kind == "missing segment" and len(victim.read) > 1:
        disk.unlink(victim.read[-2].info.path)
        victim.must_refuse(kind)
    elif kind == "cut segment" and len(victim.read) > 1 and victim.read[-2].frames:
        segment = victim.read[-2]
        whole = disk.contents(segment.info.path)
        disk.put(segment.info.path, whole[: segment.frames[-1].start] + bytes(64))
        victim.must_refuse(kind)
