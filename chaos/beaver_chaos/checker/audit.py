"""`beaver audit`: the history checker over a user's own log, and what was seen outside.

The log alone tells whether each job lived as jobs may: the checker knows the promises and
nothing of the model that wrote it.  Two more accounts can be compared, as JSON lines:

Producers, `--clients`: the output of `beaver enqueue --json` as it is, or lines of

    {"id": "order-7", "seq": 41, "created": true}   it was acknowledged so
    {"sent": ["a", "b"]}                            asked for together, all or none
    {"refused": ["c"]}                              nothing of it was taken in
    {"lost": ["d"]}                                 no answer came
    {"changed": "CANCEL", "id": "order-7"}          an operator's change was acknowledged

Workers, `--workers`: what their code ran, in the order in which it happened:

    {"began": 57, "job": "order-7", "pid": 4711}    user code of that token began
    {"ended": 57, "job": "order-7", "pid": 4711}    ... and came to its end

Either account may be incomplete: jobs that it does not name are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from beaver.errors import Corruption, InvalidInput, NotFound
from beaver.journal.wal.reader import read_commits
from beaver.ports import Disk
from beaver.snapshot.files import load_snapshot
from beaver.store.log_source import find_source
from beaver.structs.views import Accepted
from beaver.system.disk import SystemDisk
from beaver_chaos.checker.attempts import RunLine
from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.checker.history import HistoryCheck
from beaver_spec.traces.following import judged

_READS_MAX: Final = 5
"""Times that it starts over when a server moves files under it."""
_decode: Final = msgspec.json.Decoder().decode


class AuditReport(msgspec.Struct):
    """The verdict, and what it rests on."""

    ok: bool
    base: str = "none"
    """`none` where the log is there from its first event, else `snapshot`."""
    events: int = 0
    first_seq: int = 1
    last_seq: int = 0
    jobs: dict[str, int] = {}
    """Jobs by state, where the log ends."""
    acknowledged: int = 0
    """Acknowledgements that were compared."""
    runs: int = 0
    """Lines of workers that were compared."""
    violations: list[str] = []
    error: str | None = None
    """Damage of the files, which ends the audit."""


def audit(
    path: str,
    *,
    clients: str | None = None,
    workers: str | None = None,
    disk: Disk | None = None,
) -> AuditReport:
    """Checks a log against the promises.

    Args:
        path: A data directory; a server may be using it.
        clients: File of what producers and operators were told.
        workers: File of what workers ran.
        disk: Where the directory lies.

    Raises:
        NotFound: There is no log, or no such file.
        InvalidInput: A line cannot be read.
        NewerFormat: Something is of a newer version.
    """
    # Read before the log: what is told meanwhile must not look as if it were missing.
    told = list(_lines(clients)) if clients is not None else []
    runs = [_run(number, line) for number, line in _lines(workers)] if workers is not None else []
    history, report = _follow(disk or SystemDisk(), path)
    if report.error is None:
        witness = ClientRecord()
        for number, line in told:
            report.acknowledged += _witness(witness, history, number, line)
        history.compare(witness, is_whole=False)
        history.attempts.compare(runs)
        report.runs = len(runs)
    report.events = sum(history.counts.values())
    report.last_seq = history.last_seq
    report.jobs = dict(sorted(history.states().items()))
    report.violations = history.violations
    report.ok = not report.violations and report.error is None
    return report


def _follow(disk: Disk, path: str) -> tuple[HistoryCheck, AuditReport]:
    """Reads the whole log, from the first event that is kept or from behind a snapshot."""
    for attempt in range(_READS_MAX):
        history, report = HistoryCheck(), AuditReport(ok=False)
        try:
            source = find_source(disk, path)
            if source.first_seq > 1:
                snapshots = [s for s in source.snapshots if s.info.last_seq >= source.first_seq - 1]
                if not snapshots:
                    report.error = (
                        f"the log begins with seq {source.first_seq}, and no snapshot says "
                        "what was before"
                    )
                    return history, report
                report.base = "snapshot"
                history.begin(load_snapshot(disk, snapshots[0].path).state)
            report.first_seq = history.last_seq + 1
            history.violations += judged(disk, source.layout, source.infos)
            if history.violations:
                return history, report  # What follows such an event says nothing any more.
            history.read(read_commits(disk, source.layout, history.last_seq))
        except Corruption as error:
            report.error = str(error).partition("\n")[0]
        except FileNotFoundError as error:
            # A segment was pruned between its listing and its reading.
            if attempt == _READS_MAX - 1:
                raise NotFound(f"the files of {path} change too fast to be read") from error
            continue
        return history, report
    raise AssertionError("the last attempt returns or raises")


# -- the other accounts ---------------------------------------------------------------------------


def _lines(path: str) -> Iterator[tuple[int, Any]]:
    """Yields the numbered lines of a file, decoded; empty ones are left out."""
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _decode(line)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{path}, line {number}: {error}") from None


def _witness(witness: ClientRecord, history: HistoryCheck, number: int, line: Any) -> int:
    """Notes one line of the clients' account; returns how many acknowledgements it held."""
    match line:
        case [*answers]:
            return sum(_witness(witness, history, number, answer) for answer in answers)
        case {"id": str(job), "seq": int(seq)}:
            if (job, seq) not in history.earlier:
                witness.sending([job])
                created = bool(line.get("created", False))
                witness.acknowledge([Accepted(job, seq, created)])
            return 1
        case {"sent": [*jobs]}:
            witness.sending([str(job) for job in jobs])
        case {"refused": [*jobs]}:
            witness.refuse([str(job) for job in jobs])
        case {"lost": [*jobs]}:
            witness.lose([str(job) for job in jobs])
        case {"changed": str(event), "id": str(job)}:
            witness.change(event, job)
        case _:
            raise InvalidInput(f"line {number} of the clients is of no known form: {line!r}")
    return 0


def _run(number: int, line: Any) -> RunLine:
    match line:
        case {"began": int(token), "job": str(job)}:
            return RunLine(False, token, int(line.get("pid", 0)), job)
        case {"ended": int(token), "job": str(job)}:
            return RunLine(True, token, int(line.get("pid", 0)), job)
        case _:
            raise InvalidInput(f"line {number} of the workers is of no known form: {line!r}")
