"""Bit rot in every region of every file of a real server's store: never a silent loss.

The cases are made from the files that are found, so that no file can be forgotten; a case
compares with what is known of the intact store (`beaver_chaos.faults.rot.damage`).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from beaver.errors import Corruption
from beaver.journal.wal.layout import Layout
from beaver_chaos.faults.rot.cases import IN_REGIONS, Case, Harm, cases_of, copy, damage
from beaver_chaos.faults.rot.damage import (
    FAULT,
    GOOD,
    CaseVerdict,
    Finding,
    start,
    tell,
    try_all,
    try_case,
)
from beaver_chaos.faults.rot.regions import FileKind, UnknownFile, kind_of, regions_of
from beaver_chaos.faults.rot.store import Intact, make_store, prune
from beaver_chaos.faults.table import experiment
from beaver_chaos.program.process import eventually, own_environment

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Intact:
    """A store whose log is kept from the first event on."""
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def pruned(whole: Intact, tmp_path_factory: pytest.TempPathFactory) -> Intact:
    """The same once the archive was pruned: the snapshots alone know how it began."""
    return prune(whole, tmp_path_factory.mktemp("pruned"))


MAY_BE = {
    FileKind.LOG: {
        CaseVerdict.REFUSED,
        CaseVerdict.REPAIRED,
        CaseVerdict.UNHARMED,
        CaseVerdict.TAIL,
    },
    FileKind.SEALED: {CaseVerdict.REFUSED, CaseVerdict.NOT_NEEDED, CaseVerdict.UNHARMED},
    FileKind.SNAPSHOT: {CaseVerdict.REPAIRED, CaseVerdict.NOT_NEEDED, CaseVerdict.UNHARMED},
    FileKind.SLOTS: {CaseVerdict.ATTEMPTS, CaseVerdict.UNHARMED},
    FileKind.PREPARED: {CaseVerdict.UNHARMED},
    FileKind.HISTORY: {CaseVerdict.UNHARMED},
    FileKind.HINT: {CaseVerdict.UNHARMED},
    FileKind.LOCK: {CaseVerdict.UNHARMED},
    FileKind.BROKEN: {CaseVerdict.UNHARMED},
}
"""What may come of damage to a file of each kind."""


@pytest.mark.parametrize("kind", FileKind, ids=lambda kind: kind.name.lower())
def test_no_damage_is_lost_in_silence(kind: FileKind, whole: Intact, tmp_path: Path) -> None:
    found = try_all(whole, tmp_path, lambda case: case.kind is kind)
    tell(whole, found)
    print(Counter(str(finding.verdict) for finding in found))
    assert len(found) >= 5
    assert [f for f in found if f.verdict not in GOOD] == []
    assert {finding.verdict for finding in found} <= MAY_BE[kind]


@pytest.mark.parametrize(
    "kind", [FileKind.SEALED, FileKind.SNAPSHOT, FileKind.HISTORY], ids=lambda k: k.name
)
def test_nor_where_the_archive_was_pruned(kind: FileKind, pruned: Intact, tmp_path: Path) -> None:
    def wanted(case: Case) -> bool:
        return case.kind is kind and case.damage not in (Harm.FLIP_FIRST, Harm.FLIP_LAST)

    found = try_all(pruned, tmp_path, wanted)
    tell(pruned, found)
    assert [f for f in found if f.verdict not in GOOD] == []
    assert {finding.verdict for finding in found} <= MAY_BE[kind]


def test_both_snapshots_gone_and_a_pruned_archive_are_refused(
    pruned: Intact, tmp_path: Path
) -> None:
    """Two files at once: no case of one file leaves a log without a beginning."""
    (tmp_path / "pruned").mkdir()
    data = tmp_path / "pruned" / "data"
    copy(pruned, None, data)
    (data / "snapshot.old.json").unlink()
    only_one = pruned._replace(data=data)
    found = try_all(only_one, tmp_path, lambda case: case.kind is FileKind.SNAPSHOT)
    assert {finding.verdict for finding in found} == {CaseVerdict.REFUSED, CaseVerdict.UNHARMED}
    assert {f.case.damage for f in found if f.verdict is CaseVerdict.UNHARMED} <= {Harm.OLDER}


@pytest.mark.parametrize("left", ["slots", "wal.adopted", "history.db", "snapshot.json"])
def test_one_file_is_enough_to_show_that_there_was_a_log(
    left: str, whole: Intact, tmp_path: Path
) -> None:
    """A server that is killed in its first second has slots and little else."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("LOCK", left):
        (data / name).write_bytes((whole.data / name).read_bytes())
    with pytest.raises(Corruption, match="there is no log") as caught:
        start(data)
    assert caught.value.file == str(data / "wal.log")
    assert not (data / "wal.log").exists()


# -- in processes ----------------------------------------------------------------------------------

SAMPLE = [
    (FileKind.LOG, "last frame with events, payload", Harm.FLIP, 4),
    (FileKind.LOG, "last frame, MARK or CLOSE, header CRC", Harm.FLIP, 0),
    (FileKind.LOG, "file header, store id", Harm.FLIP, 4),
    (FileKind.SEALED, "last frame, MARK or CLOSE, flags", Harm.FLIP, None),
    (FileKind.SNAPSHOT, "first job", Harm.FLIP, 0),
    (FileKind.SLOTS, "whole file", Harm.EMPTY, 0),
    (FileKind.HISTORY, "file header", Harm.SECTOR, 0),
    (FileKind.HINT, "whole file", Harm.FLIP, 0),
]


@pytest.mark.parametrize(("kind", "region", "what", "code"), SAMPLE)
def test_the_program_ends_as_the_case_did(
    kind: FileKind, region: str, what: Harm, code: int | None, whole: Intact, tmp_path: Path
) -> None:
    case = [c for c in cases_of(whole) if (c.kind, c.region, c.damage) == (kind, region, what)][-1]
    verdict = try_case(whole, case, tmp_path / "tried").verdict
    data = tmp_path / "data"
    copy(whole, case, data)
    damage(case, whole, data)
    seen = beaver("verify", str(data), "--json")
    # Slots, history and hints are no part of what `verify` looks at.
    assert seen.returncode == (4 if kind in (FileKind.SEALED, FileKind.SNAPSHOT) else code), (
        seen.stderr
    )
    if seen.returncode == 4:
        error = json.loads(seen.stdout)["error"]
        assert error["file"] == str(data / case.name)
        assert error["offset"] >= 0
    options = ["-A", "beaver_chaos.program.jobs:app", "--http", "off", "--workers", "2"]
    done = beaver("run", "--burst", "--data", str(data), *options)
    expected = code if code is not None else (4 if verdict is CaseVerdict.REFUSED else 0)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if expected == 4:
        assert f"{data / case.name} at offset " in done.stderr
        assert len(done.stderr.splitlines()) <= 3
    else:
        assert beaver("verify", str(data)).returncode == (4 if kind is FileKind.SEALED else 0)


def test_a_server_makes_a_damaged_history_anew_and_answers_right(
    whole: Intact, tmp_path: Path
) -> None:
    """Also a row that SQLite itself takes for good."""
    region = regions_of(whole.data, "history.db")[-1]
    case = Case("history.db", FileKind.HISTORY, region.name, Harm.FLIP, region.start, region.end)
    data = tmp_path / "data"
    copy(whole, case, data)
    with contextlib.closing(sqlite3.connect(data / "history.db")) as db, db:
        db.execute("UPDATE keys SET keys = zeroblob(length(keys))")
    command = [sys.executable, "-m", "beaver", "run", "--data", str(data), "--http", "off"]
    log = tmp_path / "log"
    with (
        log.open("w") as said,
        subprocess.Popen(command, env=own_environment(), stderr=said) as server,
    ):
        try:
            eventually((data / "beaver.sock").exists, "the server, not the files, is asked")
            stories = []
            for name in ("r0-1", "r1-2", "r2-3"):
                told = json.loads(beaver("show", name, "--json", "--data", str(data)).stdout)
                stories.append(told["result"])
            # The log tells the stories as well; the helper comes to the history in its own time.
            made_anew = "history.db is damaged, and is made anew"
            eventually(lambda: made_anew in log.read_text(), made_anew)
        finally:
            server.terminate()
            server.wait(timeout=60)
    assert {json.dumps(story) for story in stories} == {json.dumps("x" * 5_000)}


def beaver(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beaver", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=own_environment()
    )


# -- the checks themselves -------------------------------------------------------------------------


def test_a_file_of_an_unknown_kind_cannot_be_forgotten(whole: Intact, tmp_path: Path) -> None:
    data = tmp_path / "data"
    copy(whole, None, data)
    (data / "new.index").write_bytes(b"1")
    with pytest.raises(UnknownFile, match="tell the regions of this file"):
        list(cases_of(whole._replace(data=data)))


def test_every_file_of_the_layout_is_of_a_known_kind_and_is_tried(whole: Intact) -> None:
    layout = Layout("data")
    properties = [n for n, v in vars(Layout).items() if isinstance(v, property)]
    names = {getattr(layout, name).removeprefix("data/") for name in properties}
    names -= {"archive", "http.token"}  # A directory; and a file that no release writes yet.
    assert {kind_of(name) for name in names} == set(FileKind) - {FileKind.SEALED, FileKind.BROKEN}
    assert {case.kind for case in cases_of(whole)} == set(FileKind)
    assert {case.damage for case in cases_of(whole)} == set(Harm)
    assert set(IN_REGIONS) < set(Harm)


MOVES = 12
"""Places beside each other that a blind reader is tried at."""

SOWN = {
    "the CRC of a frame is not compared": (
        "beaver.journal.wal.scan.frame_crc_of",
        lambda buffer, position, *_: int.from_bytes(buffer[position + 4 : position + 8], "little"),
        FileKind.LOG,
        "payload",
    ),
    "the CRC of a snapshot is not compared": (
        "beaver.snapshot.files._check_crc",
        lambda file, _: file.size(),
        FileKind.SNAPSHOT,
        "",
    ),
    "the CRC of a row of the history is not compared": (
        "beaver.history.database.checked beaver.history.runs.checked",
        lambda row: row[:-1],
        FileKind.HISTORY,
        "page content",
    ),
}


@pytest.mark.parametrize("bug", SOWN)
def test_a_blind_reader_is_seen(
    bug: str, whole: Intact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one bit of each region changes nothing that is compared, the next ones are tried."""
    places, blind, kind, region = SOWN[bug]
    for place in places.split():
        monkeypatch.setattr(place, blind)
    cases = [
        case
        for case in cases_of(whole)
        if case.kind is kind and region in case.region and case.damage is Harm.FLIP
    ]
    found: list[Finding] = []
    with experiment(FAULT, str(kind), sown=bug) as told:
        for number in range(MOVES):
            (tmp_path / str(number)).mkdir()
            for index, case in enumerate(cases):
                # The bit that flips is in the middle of what the case names; pages fill from
                # their ends.
                behind = (case.end - case.start) * number // MOVES
                moved = case._replace(start=case.start + behind)
                found.append(try_case(whole, moved, tmp_path / str(number) / str(index)))
            told.broken = [f"{f.case}: {f.words}" for f in found if f.verdict not in GOOD][:5]
            if told.broken:
                break
    assert told.broken, [(str(f.case), f.verdict) for f in found]
