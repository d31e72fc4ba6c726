"""What a person sees of the API: signatures, the `repr` of views, words, refusals of options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver import Beaver, Handle, InvalidInput, Job, Retry, Snooze, WaitTimeout
from beaver.client.blocking import Client
from beaver.config.settings import SETTINGS, WorkerSettings
from beaver.request.job_options import MEANING, JobOptions
from beaver.structs.views import EventView, JobView, QueueView, ResultView
from beaver.task.context import JobContext


@pytest.fixture
def app(data: str) -> Beaver:
    return Beaver(data)


def public_methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        if not name.startswith("_") and callable(getattr(kind, name)):
            yield name, getattr(kind, name)


@pytest.mark.parametrize("kind", [Beaver, Handle, Client, JobContext])
def test_every_public_method_has_a_real_signature(kind: type) -> None:
    """Its parameters by name, also where it is made from a builder."""
    generic = {
        name
        for name, method in public_methods(kind)
        if {"args", "kwargs"} <= set(inspect.signature(method).parameters)
    }
    # `ctx.enqueue(task, ...)` takes what the task takes.
    assert generic == ({"enqueue"} if kind is JobContext else set())


def test_a_made_method_shows_the_parameters_and_the_result_of_what_it_does(app: Beaver) -> None:
    handle: Any = Handle  # mypy takes a method of a generic class for a variable
    for method in (handle.result, handle.aresult):
        shown = inspect.signature(method)
        assert list(shown.parameters) == ["self", "timeout"]
        assert shown.return_annotation == "R"
    assert "Call" not in str(inspect.signature(app.enqueue_many))
    assert list(inspect.signature(app.enqueue).parameters)[:3] == ["task", "payload", "id"]
    assert "state" in inspect.signature(app.client.list_jobs).parameters
    assert "self" not in inspect.signature(app.client.list_jobs).parameters
    assert inspect.iscoroutinefunction(app.aenqueue)
    assert not inspect.iscoroutinefunction(app.enqueue)
    assert (handle.aresult.__name__, handle.aresult.__qualname__) == ("aresult", "Handle.aresult")


def test_a_job_shows_the_signature_of_its_function(app: Beaver) -> None:
    @app.job
    def add(a: int, b: int = 0) -> int:
        return a + b

    assert str(inspect.signature(add)).replace("'", "") == "(a: int, b: int = 0) -> int"


def test_what_enqueues_a_job_shows_the_parameters_that_a_producer_gives(app: Beaver) -> None:
    @app.job
    async def report(ctx: JobContext, day: str, *, pages: int = 1) -> list[str]:
        return [day] * pages

    for name in ("enqueue", "aenqueue", "delay", "adelay", "request"):
        shown = str(inspect.signature(getattr(report, name))).replace("'", "")
        returned = "Request" if name == "request" else "Handle[list[str]]"
        assert shown == f"(day: str, *, pages: int = 1) -> {returned}"
        assert getattr(report, name).__doc__ == getattr(Job, name).__doc__
        assert inspect.iscoroutinefunction(getattr(report, name)) == name.startswith("a")
    assert report.enqueue("monday", pages=2).created


def test_the_repr_of_a_view_shows_what_differs_from_the_default_and_json_as_text() -> None:
    view = JobView("a", 3, "pending", task="send", payload=msgspec.Raw(b'{"to":"x"}'))
    assert repr(view) == (
        "JobView(id='a', seq=3, state='pending', task='send', payload={\"to\":\"x\"})"
    )
    assert repr(QueueView()) == "QueueView()"
    assert repr(QueueView(weight=11)) == "QueueView(weight=11)"
    assert "Raw object" not in repr(ResultView("a", "completed", msgspec.Raw(b"[1]")))
    long = repr(EventView(1, 2, "ACK", "a", result=msgspec.Raw(b'"' + b"x" * 5_000 + b'"')))
    assert len(long) < 400


def test_what_was_sent_can_be_seen_in_the_repr_of_a_status(app: Beaver) -> None:
    handle = app.enqueue("send", {"to": "a@b.c"}, id="order-7")
    assert '{"to":"a@b.c"}' in repr(handle.status())


@pytest.mark.parametrize("kind", [Beaver, Handle, Client, JobContext, Job])
def test_every_parameter_of_a_public_method_is_documented(kind: type) -> None:
    missing = []
    for name, method in public_methods(kind):
        text = inspect.getdoc(method) or ""
        for parameter in inspect.signature(method).parameters.values():
            if parameter.name == "self" or name in ("call", "call_each", "enqueue_each"):
                continue
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if not re.search(rf"^ +{parameter.name}: ", text, re.MULTILINE):
                missing.append(f"{name}({parameter.name})")
    assert missing == []


def test_no_docstring_is_a_formula() -> None:
    """A first line says what is done."""
    root = Path(__file__).parents[2]
    folders = [root / name for name in ("model", "runtime", "spec", "chaos")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    formula = "Args beyond " + "the obvious"
    assert len(files) > 200
    assert [file.name for file in files if formula in file.read_text()] == []


def test_every_option_of_a_job_is_told_once_for_type_checkers_and_for_help() -> None:
    assert set(MEANING) == set(JobOptions.__annotations__)
    for method in (Beaver.enqueue, Beaver.aenqueue, Beaver.request, Job.options):
        assert set(MEANING) <= set(inspect.signature(method).parameters)
        assert all(f"{name}: {text}" in (method.__doc__ or "") for name, text in MEANING.items())


# -- one word for one thing ----------------------------------------------------------------------


def test_a_handle_has_the_words_of_the_command_line(app: Beaver) -> None:
    handle = app.enqueue("send", 1)
    assert handle.cancel() == "cancelled"
    assert handle.retry() == "pending"
    assert bytes(handle.status().payload) == b"1"
    handle.cancel()
    assert handle.retry({"to": "b"}) == "pending"
    assert bytes(handle.status().payload) == b'{"to":"b"}'
    handle.cancel()
    assert handle.retry(None) == "pending"
    assert bytes(handle.status().payload) == b"null"
    assert handle.discard() == "discarded"
    kind: Any = Handle
    assert kind.requeue is kind.retry
    with pytest.raises(InvalidInput):
        handle.retry(object())


# -- options that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("qeue", "queue"), ("max_retries", "max_attempts"), ("run_at", "at"), ("countdown", "delay")],
)
def test_an_unknown_option_names_the_one_that_was_meant(
    app: Beaver, wrong: str, meant: str
) -> None:
    job = app.job(name="f")(lambda: None)
    given: dict[str, Any] = {wrong: 1}
    with pytest.raises(TypeError, match=rf"no option '{wrong}'; did you mean {meant}\?"):
        job.options(**given)
    with pytest.raises(TypeError, match=rf"did you mean {meant}\?"):
        app.enqueue("f", None, **given)


def test_a_declaration_knows_its_own_options_only(app: Beaver) -> None:
    with pytest.raises(TypeError, match=r"no option 'tags'; known are name, queue"):
        app.job(tags=["a"])  # type: ignore[call-overload]


def test_run_worker_takes_every_setting_but_its_own_address() -> None:
    assert set(WorkerSettings.__annotations__) == set(SETTINGS) - {"data", "app"}


def test_run_worker_names_the_setting_that_was_meant(app: Beaver) -> None:
    with pytest.raises(InvalidInput, match=r"no setting 'max_attemps'; did you mean max_attempts"):
        app.run_worker(max_attemps=2)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="no setting 'data'"):
        app.run_worker(data="elsewhere")  # type: ignore[call-arg]


# -- durations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.01, "10ms", timedelta(milliseconds=10), 0, -1])
def test_a_wait_takes_every_form_of_a_duration(app: Beaver, timeout: Any) -> None:
    handle = app.enqueue("echo")
    with pytest.raises(WaitTimeout):
        handle.result(timeout=timeout)
    with pytest.raises(WaitTimeout):
        app.client.wait(handle.id, timeout)
    with pytest.raises(InvalidInput, match="timeout: 'soon' is no duration"):
        handle.result(timeout="soon")


def test_steering_takes_every_form_of_a_duration() -> None:
    for delay in (90, "90s", "1m30s", timedelta(seconds=90)):
        assert (Retry(delay).delay_ms, Snooze(delay).delay_ms) == (90_000, 90_000)


# -- backoff ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [5, 0.5, "5", " 5 "])
def test_a_backoff_without_a_unit_is_refused_and_told_what_to_write(app: Beaver, bare: Any) -> None:
    """A job file counts it in ms, and every other duration of Python is seconds."""
    number = str(bare).strip()
    for declare in (
        lambda: app.job(backoff=bare)(lambda: None),
        lambda: app.job(name="f")(lambda: None).options(backoff=bare).request(),
        lambda: app.request("f", None, backoff=bare),
    ):
        with pytest.raises(InvalidInput, match=rf'write "{number}s" or "{number}ms"'):
            declare()
