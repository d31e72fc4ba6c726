"""Results of experiments with faults, passed line by line, and their table.

A test that injects a fault tells what came of it with `tell_fault`, or runs inside
`experiment`, which also tells of a broken promise.  The lines go to `faults.jsonl` in the
directory that an environment variable names; without it nothing is written.  One line is one
`write` to a file opened for appending, so several processes may tell at once.

What lives here: the record, and how it is told and read.  The table and the results for
`beaver check` are made in `faults.report`; what may not live here are the faults.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from beaver_chaos.program.process import PromiseBroken

REPORTS_VARIABLE: Final = "BEAVER_FAULT_REPORTS"
"""Environment variable with the directory that experiments are told to."""
FILE: Final = "faults.jsonl"
SENTENCES_MAX: Final = 5
"""Sentences that one record keeps of what went wrong."""
_SENTENCE_MAX: Final = 300


class FaultResult(StrEnum):
    """How an experiment ended."""

    HELD = "held"
    """Nothing was lost, and the program went on or was started again."""
    REFUSED = "refused"
    """It saw damage and did not start, saying so: nothing was lost in silence."""
    LOST = "lost"
    """Something acknowledged is gone."""
    BROKEN = "broken"
    """Another promise was broken: a job completed twice, or the files do not verify."""
    FAILED = "failed"
    """It did not come to its end, so nothing is known.  A later one like it replaces it."""
    CAUGHT = "caught"
    """A bug was sown on purpose, and the checker saw it: as it should be."""
    MISSED = "missed"
    """A bug was sown on purpose, and the checker is blind to it."""
    SKIPPED = "skipped"


class Experiment(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One experiment: what was done to a store, and what came of it."""

    fault: str
    """The fault, in the same words each time: the experiments of one fault are one row."""
    where: str = ""
    """To what, or at which point: a file system, a system call, a region of a file."""
    times: int = 1
    """How often it was injected."""
    acknowledged: int = 0
    """Acknowledged jobs (or records, where there are no jobs) that were looked for."""
    lost: int = 0
    """Those of them that are gone."""
    refused: int = 0
    """Starts that were refused, with a sentence that tells what is damaged."""
    recovery_s: list[float] = []
    """Seconds from the start of a server to its first answer, for each start after a fault."""
    broken: list[str] = []
    """The broken promises, as sentences."""
    failed: list[str] = []
    """Why it did not come to its end."""
    sown: str = ""
    """The bug that was sown on purpose, for a checker that has to see it."""
    skipped: str = ""
    """Why it was not done."""

    @property
    def outcome(self) -> FaultResult:
        if self.skipped:
            return FaultResult.SKIPPED
        if self.lost or self.broken:
            bad = FaultResult.LOST if self.lost else FaultResult.BROKEN
            return FaultResult.CAUGHT if self.sown else bad
        if self.failed:
            return FaultResult.FAILED
        if self.sown:
            return FaultResult.MISSED
        return FaultResult.REFUSED if self.refused else FaultResult.HELD

    def note(self, error: Exception) -> None:
        """Notes what an error says was lost or broken, or that it ended the experiment."""
        sentences = str(error).splitlines() or [type(error).__name__]
        kept = [line[:_SENTENCE_MAX] for line in sentences[:SENTENCES_MAX]]
        if isinstance(error, PromiseBroken):
            self.lost += error.lost
            self.broken = kept
        else:
            self.failed = kept


def tell_fault(told: Experiment) -> None:
    """Hands a record over, where somebody collects them.

    Example:
        tell_fault(Experiment(fault="bit rot", where="header of a sealed segment", refused=1))
    """
    directory = os.environ.get(REPORTS_VARIABLE)
    if directory is None:
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    line = msgspec.json.encode(told) + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(Path(directory) / FILE, flags, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


@contextmanager
def experiment(fault: str, where: str = "", *, sown: str = "") -> Iterator[Experiment]:
    """Gives a record to fill in and tells it at the end, also when the experiment fails.

    A `PromiseBroken` from inside is told as lost or broken, any other error as failed.  An
    experiment that is interrupted is not told.

    Example:
        with experiment("bit rot", "header of a sealed segment") as told:
            told.refused += expect_refusal(directory)
        with experiment("power cut", "XFS", sown="no sync") as told:
            with pytest.raises(PromiseBroken) as caught:
                cut(directory)
            told.note(caught.value)
    """
    told = Experiment(fault=fault, where=where, sown=sown)
    try:
        yield told
    except Exception as error:
        told.note(error)
        tell_fault(told)
        raise
    tell_fault(told)


def read_faults(directory: Path) -> list[Experiment]:
    """Returns what was told to a directory so far, in order; nothing where there is none.

    Raises:
        msgspec.MsgspecError: A line is no record.
    """
    path = directory / FILE
    if not path.exists():
        return []
    decode = msgspec.json.Decoder(Experiment).decode
    return [decode(line) for line in path.read_bytes().splitlines() if line]
