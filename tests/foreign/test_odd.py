"""What is odd and legal harms nobody: a server lives with it, and so do all who read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from beaver.replay.replaying import check
from beaver.system.disk import SystemDisk
from tests.foreign.illegal.story import Story, enqueued
from tests.foreign.wire import MARK, Raw
from tests.support.program import Server, beaver, run_beaver

LAST_MS = 253_402_300_799_000
NUMBER_MAX = (1 << 53) - 1
NOT_FOUND = 6


def odd_fields(s: Story) -> None:
    """The ends of every field's range, and texts that nobody expects."""
    s.tell([13, 2, False, "w" * 10_000])
    s.tell([14, (1 << 64) - 1, (1 << 64) - 1], [12, "mail", False, 1, (1 << 64) - 1, False])
    s.tell(
        enqueued("ü" * 127, payload=b"\xff\xfe"),
        enqueued("empty", payload=b""),
        enqueued("never", NUMBER_MAX, timeout_ms=LAST_MS, backoff_base_ms=LAST_MS),
        enqueued("first", priority=0, max_attempts=10_000, backoff_max_ms=LAST_MS),
        enqueued("none", timeout_ms=0, backoff_max_ms=0, backoff_jitter=1),
        enqueued("tags", tags=["t" * 200] * 16, queue="q" * 200, task="t" * 200),
        [*enqueued("later release"), "a field", 7],
        [1, "old release", Raw(b"\xc4\x06\x91\xa4echo"), b"null", b"digest-of-12"],
    )
    token = s.dispatch("first", NUMBER_MAX)
    s.tell([3, "first", token, b"this is no JSON"])
    token = s.dispatch("none")
    s.tell([4, "none", token, NUMBER_MAX, "unheard of", "e" * 1_000_000])
    token = s.dispatch("empty")
    s.tell([7, "empty", token, "unheard of as well", "\x1b[31m\n\0"])
    s.tell([10, "empty", b"[1,"])
    s.tell([7, "empty", 0, "failed"])
    s.log.frame(b"", 0, flags=MARK)
    s.log.frame(b"", 0, flags=MARK)


def odd_forms(s: Story) -> None:
    """Numbers, texts and arrays in MessagePack's longest forms."""
    long_id = Raw(b"\xdb\0\0\0\x01a")
    s.tell([Raw(b"\xcf" + bytes(7) + b"\x01"), long_id, *enqueued("a")[2:]])
    s.tell([2, long_id, Raw(b"\xd3" + bytes(7) + b"\x01")])


def in_the_last_year(s: Story) -> None:
    """Stamps at the end of time, from which a server has to go on."""
    s.now_ms = LAST_MS - 2_000
    s.running("a")


@pytest.mark.parametrize(
    "tell",
    [
        odd_fields,
        pytest.param(odd_forms, marks=pytest.mark.nightly),
        pytest.param(in_the_last_year, marks=pytest.mark.nightly),
    ],
)
def test_a_server_lives_with_what_is_odd_and_legal(
    tell: Callable[[Story], None], tmp_path: Path
) -> None:
    """It starts, takes and runs jobs, ends well and starts again; every reader reads it."""
    story, data = Story(), tmp_path / "data"
    tell(story)
    data.mkdir(mode=0o700)
    (data / "wal.log").write_bytes(story.log.data + bytes(4_096))
    assert check(SystemDisk(), str(data)).ok
    where = ("--data", str(data))
    for number in range(2):
        server = Server(data, "--workers", "1")
        server.ready()
        beaver("enqueue", *where, "--id", f"new-{number}", "--wait", "echo", "[1]")
        for command in ("list", "status"):
            assert run_beaver(command, "--json", *where).returncode == 0
        for name in ("first", "empty", "none", "a"):
            for command in ("show", "explain"):
                told = run_beaver(command, name, *where)
                assert told.returncode in (0, NOT_FOUND), (command, name, told.stderr)
        assert server.stop() == 0, "".join(server.stderr)
    assert run_beaver("replay", str(data), "--json").returncode == 0
    assert run_beaver("replay", str(data)).returncode == 0
    for words in (["replay", "--check"], ["verify"], ["audit"]):
        done = run_beaver(*words, str(data), "--json")
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert json.loads(done.stdout)["ok"]
