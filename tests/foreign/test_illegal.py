"""Logs that no server has ever written are refused, by every reader, before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from beaver.errors import Corruption
from beaver.replay.replaying import check
from beaver.store.recovery import open_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver_chaos.checker.audit import audit
from beaver_spec.traces.following import validate_store
from tests.cli.conftest import everything_in
from tests.foreign.illegal.all import KINDS
from tests.foreign.illegal.story import Kind, Story
from tests.support.program import run_beaver

CORRUPT = 4
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
some = pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in KINDS
        if kind.name
        in {
            "start_before_run_at",
            "a_stamp_goes_back",
            "a_second_suspect",
            "boot_leaves_a_job_in_flight",
            "a_child_of_nobody",
            "the_first_epoch_is_seven",
            "a_mark_with_events",
            "a_weight_of_zero",
            "padding_that_is_not_zero",
            "a_worker_beyond_64_bits",
            "a_jitter_that_is_no_number",
        }
    ],
    ids=lambda kind: kind.name,
)
"""One of each room of the house: for what takes a process each."""


def forged(directory: Path, kind: Kind) -> tuple[Path, int]:
    """Writes a store with one break; returns it with the seq at which that is found."""
    story = Story(boot=kind.boots)
    seq = kind.forge(story)
    data = directory / kind.name
    data.mkdir(mode=0o700, parents=True)
    (data / "wal.log").write_bytes(story.log.data)
    return data, seq


def test_each_kind_has_a_name_of_its_own() -> None:
    """And there are as many as the law has rules."""
    assert max(Counter(kind.name for kind in KINDS).values()) == 1
    assert len(KINDS) >= 140


def test_the_stories_up_to_their_break_are_legal(tmp_path: Path) -> None:
    """It is the break that is refused: without its last frame every log that has more is good."""
    good = 0
    for kind in KINDS:
        story = Story(boot=kind.boots)
        seq = kind.forge(story)
        story.log.data = story.log.before(seq)
        data = tmp_path / kind.name
        data.mkdir()
        (data / "wal.log").write_bytes(story.log.data)
        report = check(SystemDisk(), str(data))
        assert report.ok, (kind.name, report)
        good += report.events > 0
    assert good > 100


@each
def test_replay_finds_it_with_seq_and_offset(kind: Kind, tmp_path: Path) -> None:
    """The offset is that of the frame, or of the log's end where only the end shows it."""
    data, seq = forged(tmp_path, kind)
    report = check(SystemDisk(), str(data))
    assert not report.ok
    assert report.error is not None
    assert kind.words in report.error.reason
    assert report.error.seq == seq
    assert report.error.file == str(data / "wal.log")
    assert 64 <= report.error.offset < len((data / "wal.log").read_bytes())


@each
def test_the_specification_alone_finds_it(kind: Kind, tmp_path: Path) -> None:
    """The second opinion of `replay --check`, `verify` and `audit` needs no other."""
    data, _ = forged(tmp_path, kind)
    try:
        verdict = validate_store(str(data))
    except Corruption as error:
        assert error.offset >= 64  # noqa: PT017 - either is right
    else:
        assert not verdict.ok


@each
def test_a_start_refuses_it_and_writes_nothing(kind: Kind, tmp_path: Path) -> None:
    """What a server does first, without its process."""
    data, seq = forged(tmp_path, kind)
    before = everything_in(data)
    with pytest.raises(Corruption) as refused:
        open_store(SystemDisk(), str(data), clock=SystemClock(), create=False)
    assert kind.words in refused.value.reason
    assert refused.value.seq == seq
    assert {name: it for name, it in everything_in(data).items() if "LOCK" not in name} == before


@each
def test_an_audit_tells_of_it(kind: Kind, tmp_path: Path) -> None:
    """And ends; it never dies of what it reads."""
    data, _ = forged(tmp_path, kind)
    report = audit(str(data), disk=SystemDisk())
    assert not report.ok
    assert report.violations or report.error


@some
def test_the_commands_say_what_is_wrong_and_change_nothing(kind: Kind, tmp_path: Path) -> None:
    """`run`, `replay --check`, `verify` and `audit`, as a user runs them."""
    data, seq = forged(tmp_path, kind)
    before = (data / "wal.log").read_bytes()
    served = run_beaver("run", "--data", str(data), "--http", "off")
    assert served.returncode == CORRUPT, served.stderr
    assert f"seq {seq}" in served.stderr
    assert kind.words in served.stderr
    assert "Traceback" not in served.stderr
    checked = run_beaver("replay", str(data), "--check", "--json")
    assert checked.returncode == CORRUPT
    assert json.loads(checked.stdout)["error"]["seq"] == seq
    verified = run_beaver("verify", str(data), "--json")
    assert verified.returncode == CORRUPT
    assert json.loads(verified.stdout)["error"]["seq"] == seq
    audited = run_beaver("audit", str(data), "--json")
    assert audited.returncode not in (0, 70), audited.stderr
    assert (data / "wal.log").read_bytes() == before
