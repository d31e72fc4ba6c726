"""`status`, `list`, `show`, `explain` and the operators' commands, from the files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.cli.list_jobs import PAGE
from beaver.cli.status import tell_status
from beaver.inspect import queries
from beaver_model import State
from tests.cli.conftest import Command, everything_in


@pytest.fixture
def store(beaver: Command) -> None:
    """Three jobs in two queues; one of them cancelled, one scheduled."""
    beaver("enqueue", "echo", '{"n": 1}', "--id", "first")
    beaver("enqueue", "send", "--id", "second", "--queue", "mail")
    beaver("enqueue", "echo", "--id", "third", "--in", "1h")
    beaver("cancel", "second")


READERS = [
    ["status"],
    ["list"],
    ["show", "first"],
    ["explain", "first"],
    ["replay", "data"],
    ["replay", "data", "--check"],
    ["verify", "data"],
]


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_reading_writes_nothing(
    beaver: Command, store: None, arguments: list[str], form: list[str]
) -> None:
    before = everything_in("data")
    told = beaver(*arguments, *form)
    assert (told.code, told.err) == (0, "")
    assert told.out
    assert everything_in("data") == before


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_reading_where_nothing_is_ends_with_6_and_makes_nothing(
    beaver: Command, arguments: list[str]
) -> None:
    told = beaver(*(argument.replace("data", "none") for argument in arguments), "--data", "none")
    assert (told.code, told.out) == (6, "")
    assert "none" in told.err
    assert not Path("none").exists()


def test_status_says_that_it_comes_from_the_files(beaver: Command, store: None) -> None:
    view = beaver("status", "--json").one
    assert {
        "pending", "in_flight", "completed", "dead", "cancelled", "running", "last_seq",
        "recovery_ms", "queues", "workers",
    } <= set(view)  # fmt: skip
    assert (view["running"], view["workers"]) == (False, [])
    assert (view["pending"], view["cancelled"], view["last_seq"]) == (2, 1, 4)
    assert view["queues"]["mail"]["cancelled"] == 1
    assert "no server runs; these figures are from the files in data" in beaver("status").out


def test_list_filters_and_pages(beaver: Command, store: None) -> None:
    def ids(*arguments: object) -> list[str]:
        return [job["id"] for job in beaver("list", *arguments, "--json").json]

    assert ids() == ["first", "second", "third"]
    assert ids("--state", "pending") == ["first", "third"]
    assert ids("--queue", "mail") == ids("--task", "send") == ["second"]
    assert ids("--limit", 1, "--after", 1) == ["second"]
    assert ids("--limit", 0) == ["first", "second", "third"]
    told = beaver("list", "--limit", 2)
    assert told.err == "there may be more: --after 2, or --limit 0 for all\n"
    assert beaver("list", "--state", "dead").out == "no such jobs\n"
    assert beaver("list", "--state", "asleep").code == 2
    assert beaver("list", "--queue", "none").code == 6


def test_list_reads_more_than_a_page(beaver: Command) -> None:
    names = [f"job-{n:05}" for n in range(PAGE + 100)]
    beaver("enqueue", "--file", "-", stdin="\n".join(f'{{"id": "{name}"}}' for name in names))
    told = beaver("list", "--limit", 0, "--json").json
    assert [job["id"] for job in told] == names


def test_explain_tells_every_event_and_why_it_waits(beaver: Command, store: None) -> None:
    told = beaver("explain", "second").out
    assert " ENQUEUE second task=send queue=mail " in told
    assert " CANCEL second " in told
    assert told.endswith("It has ended: cancelled.\n")
    told = beaver("explain", "third").out
    assert "It waits for its time: " in told
    assert told.endswith("No server runs; `beaver run --data data` starts one.\n")
    beaver("pause", "default")
    assert "Its queue default is paused" in beaver("explain", "first").out
    events = beaver("explain", "second", "--json").one["events"]
    assert [event["event"] for event in events] == ["ENQUEUE", "CANCEL"]


@pytest.mark.parametrize("command", ["show", "explain", "cancel", "retry", "discard"])
def test_an_unknown_job_ends_with_6(beaver: Command, store: None, command: str) -> None:
    told = beaver(command, "nobody")
    assert (told.code, told.out, told.err) == (6, "", "beaver: no job nobody\n")


def test_a_cancelled_job_is_run_again_with_another_payload(beaver: Command, store: None) -> None:
    assert beaver("retry", "second", "--payload", '{"to": "ada"}').out == "second pending\n"
    assert beaver("show", "second", "--json").one["payload"] == {"to": "ada"}
    assert beaver("retry", "second").code == 2
    assert beaver("retry", "second", "--payload", "{").err.startswith("beaver: --payload: not JSON")
    assert beaver("retry", "a", "b", "--payload", "1").code == 2


def test_each_job_is_changed_though_another_one_is_refused(beaver: Command, store: None) -> None:
    told = beaver("cancel", "first", "nobody", "third", "--json")
    assert told.code == 6
    assert [job["id"] for job in told.json] == ["first", "third"]
    assert {job["state"] for job in told.json} == {"cancelled"}
    assert told.err == "beaver: no job nobody\n"


def test_a_discarded_job_is_gone_but_its_id_is_remembered(beaver: Command, store: None) -> None:
    assert beaver("discard", "first").code == 0
    assert beaver("show", "first", "--json").one["state"] == "discarded"
    again = beaver("enqueue", "echo", '{"n": 1}', "--id", "first", "--json")
    assert again.one == {"id": "first", "seq": 1, "created": False}


def test_a_queue_is_paused_and_resumed_over_restarts(beaver: Command, store: None) -> None:
    assert beaver("pause", "mail").out == "mail paused, 0 jobs pending\n"
    assert beaver("status", "--json").one["queues"]["mail"]["paused"] is True
    told = beaver("resume", "mail", "--json")
    assert told.one == {"queue": "mail", "paused": False, "pending": 0}


def test_a_queue_is_paused_before_its_first_job_and_a_slip_is_noted(
    beaver: Command, store: None
) -> None:
    told = beaver("pause", "mial")
    assert (told.code, told.out) == (0, "mial paused, 0 jobs pending\n")
    assert told.err == "note: no queue mial; did you mean mail?\n"
    assert beaver("status", "--json").one["queues"]["mial"]["paused"] is True
    assert beaver("resume", "mial").code == 0


def test_a_slip_at_resuming_is_refused(beaver: Command, store: None) -> None:
    told = beaver("resume", "mial")
    assert (told.code, told.err) == (6, "beaver: no queue mial; did you mean mail?\n")


def test_an_error_text_cannot_steer_the_terminal(beaver: Command) -> None:
    told = beaver("show", "a\x1b[31m", "--data", "none\x1b[2J")
    assert "\x1b" not in told.err


def test_a_recovery_that_took_long_is_told_by_phase(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {"load": 1.5, "replay": 0.25}
    for recovery_ms, told in ((1_750.0, "1750 ms (load 1500, replay 250)"), (3.0, "3 ms")):
        view = queries.status(
            State(), 0, running=True, recovery_ms=recovery_ms, recovery={"seconds": seconds}
        )
        tell_status(view, "data")
        assert f"recovered in {told}\n" in capsys.readouterr().out
