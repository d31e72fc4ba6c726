"""Thresholds: what is done otherwise for many or for much is driven on both sides.

The table stands in `docs/explanation/verification.md`; here it is held to the code, and what no
other test drives is driven.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.dispatch import submitting, task_times
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.task_times import (
    ADAPTED_MAX,
    PREFETCH_LEARN,
    PREFETCH_SPAN_MS,
    TaskTimes,
)
from beaver.errors import HelperFailed
from beaver.helper import main as helper_main
from beaver_model.commands import Discard
from tests.worlds.stores import LoggedWorld

ROOT = Path(__file__).parents[2]
FOLDERS = ("engine", "dispatch", "helper")
OTHERS = ("workers/pool.py", "workers/permits.py", "workers/wire.py", "workers/slots.py")
_OF_A_SIZE = re.compile(r"(_MAX|_MIN|_BYTES|_LEARN|_AT_ONCE)$|^ENOUGH$")
NO_THRESHOLDS = {
    *("EVENT_BYTES", "_OPERATORS_BYTES", "_BYTES", "_SLOT_BYTES", "_ARRAY_HEAD_BYTES"),
    *("_READ_BYTES", "_SYNC_BYTES", "_AT_ONCE"),
}
"""Sizes of things and of single reads, and another name of one that is in the table."""


def thresholds() -> Iterator[str]:
    """Yields the counts and sizes that code of these folders compares with."""
    runtime = ROOT / "runtime" / "beaver"
    files = [path for folder in FOLDERS for path in (runtime / folder).glob("*.py")]
    for path in [*files, *(runtime / name for name in OTHERS)]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                if _OF_A_SIZE.search(name) and name not in NO_THRESHOLDS:
                    yield f"{path.parent.name}/{path.stem}.{name}"


def told() -> dict[str, str]:
    """The rows of the table: each threshold, and the test that drives both sides."""
    page = (ROOT / "docs" / "explanation" / "verification.md").read_text()
    section = page.partition("## Thresholds")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \|[^|]*\| `([^`]+)` \|$", section, re.MULTILINE))


def test_each_threshold_is_in_the_table_and_nothing_else_is() -> None:
    assert sorted(told()) == sorted(thresholds())


@pytest.mark.parametrize("threshold", sorted(told()))
def test_the_test_that_drives_a_threshold_exists(threshold: str) -> None:
    file, _, name = told()[threshold].partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("seen", "mean_ms", "depth"),
    [
        (PREFETCH_LEARN - 1, 0.001, 1),
        (PREFETCH_LEARN, 0.001, ADAPTED_MAX),
        (PREFETCH_LEARN, PREFETCH_SPAN_MS / ADAPTED_MAX, ADAPTED_MAX),
        (PREFETCH_LEARN, PREFETCH_SPAN_MS / (ADAPTED_MAX - 0.5), ADAPTED_MAX - 1),
        (PREFETCH_LEARN, PREFETCH_SPAN_MS / 2, 2),
        (PREFETCH_LEARN, PREFETCH_SPAN_MS / 1.5, 1),
        (PREFETCH_LEARN, 10 * PREFETCH_SPAN_MS, 1),
    ],
)
def test_a_worker_holds_as_many_as_its_task_is_short(seen: int, mean_ms: float, depth: int) -> None:
    times = TaskTimes()
    for _ in range(seen):
        times.of("echo").learn(mean_ms)
    assert times.depth("echo") == depth


def test_running_times_of_too_many_tasks_are_learned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_times, "TASKS_TIMED_MAX", 3)
    times = TaskTimes()
    for name in ("a", "b", "c"):
        for _ in range(PREFETCH_LEARN):
            times.of(name).learn(0.1)
    assert times.depth("a") > 1, "as many as fit are known"
    times.of("d")
    assert times.depth("a") == 1, "one more, and all are forgotten"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "job j0"),
        (5, "jobs j0, j1, j2, j3, j4"),
        (6, "jobs j0, j1, j2, j3, j4 and 1 more"),
        (7, "jobs j0, j1, j2, j3, j4 and 2 more"),
    ],
)
def test_a_line_names_a_few_jobs_and_counts_the_rest(count: int, said: str) -> None:
    unused: Any = None
    submitter = Submitter(unused)
    submitter.unwritten = [Discard(f"j{number}") for number in range(count)]
    assert submitter._jobs() == said
    assert submitting._NAMED_MAX == 5


def test_stories_of_several_jobs_are_told_up_to_a_size_and_one_story_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into an answer is left out, and asked for again; one always comes."""
    world = LoggedWorld(tmp_path / "data")
    for name in ("a", "b", "c"):
        world.run(name)
    known = [[name, 0, False] for name in ("a", "b", "c")]

    def tell() -> dict[str, Any]:
        stories: dict[str, Any] = msgspec.json.decode(
            helper_main._tell(world.layout, [known, world.state.last_seq])
        )[0]
        return stories

    whole = tell()
    sizes = [len(msgspec.json.encode(whole[name])) for name in ("a", "b", "c")]
    assert len(set(sizes)) == 1
    for bound, names in (
        (3 * sizes[0], "abc"),
        (3 * sizes[0] - 1, "ab"),
        (2 * sizes[0], "ab"),
        (2 * sizes[0] - 1, "a"),
        (1, "a"),
    ):
        monkeypatch.setattr(helper_main, "TOLD_BYTES_MAX", bound)
        assert "".join(tell()) == names
    monkeypatch.setattr(helper_main, "STORY_BYTES_MAX", sizes[0])
    assert tell()
    monkeypatch.setattr(helper_main, "STORY_BYTES_MAX", sizes[0] - 1)
    with pytest.raises(HelperFailed, match="at most"):
        tell()
