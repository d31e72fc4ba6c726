"""`Beaver`, `@app.job` and handles: what a producer writes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import beaver
from beaver import Beaver, JobContext
from beaver.api.handle import failed
from beaver.errors import Conflict, InvalidInput, JobFailed, NotFound, StoreUnavailable
from beaver.request.requests import make_request
from beaver.structs.messages import Options, Request
from beaver.structs.views import ResultView


@pytest.fixture
def app(data: str) -> Beaver:
    return Beaver(data)


def options(request: Request) -> Options:
    return msgspec.msgpack.decode(request.options, type=Options)


# -- declaring ---------------------------------------------------------------------------------


def test_a_plain_call_just_calls(app: Beaver) -> None:
    @app.job
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(1) == 2
    assert add(1, b=5) == 6
    assert (add.__name__, add.__doc__, add.name) == ("add", "Adds.", "add")
    assert "add" in app.registry


def test_a_plain_call_of_a_coroutine_function_gives_a_coroutine(app: Beaver) -> None:
    @app.job(queue="q")
    async def double(n: int) -> int:
        return 2 * n

    assert asyncio.run(double(4)) == 8


def test_a_plain_call_passes_the_context_as_it_is_given(app: Beaver) -> None:
    @app.job
    def tell(ctx: JobContext, n: int) -> tuple[object, int]:
        return ctx, n

    assert tell("a context", 1) == ("a context", 1)  # type: ignore[arg-type]


def test_declared_options_travel_with_each_job_and_options_of_a_call_win(app: Beaver) -> None:
    @app.job(
        name="mail.send", queue="mail", priority=2, timeout="90s", max_attempts=3, backoff="5s"
    )
    def send(to: str) -> None: ...

    sent = options(send.request("a"))
    assert (sent.task, sent.queue, sent.priority) == ("mail.send", "mail", 2)
    assert sent.backoff is not None
    assert (sent.timeout_ms, sent.max_attempts, sent.backoff.base_ms) == (90_000, 3, 5_000)
    other = options(
        send.options(priority=0, queue="fast", timeout=timedelta(seconds=1)).request("a")
    )
    assert (other.queue, other.priority, other.timeout_ms, other.max_attempts) == (
        "fast",
        0,
        1_000,
        3,
    )


def test_the_last_word_on_an_option_counts(app: Beaver) -> None:
    send = app.job(name="send", queue="mail")(lambda: None)
    twice = send.options(priority=1, queue="a").options(priority=2)
    assert (options(twice.request()).priority, options(twice.request()).queue) == (2, "a")
    assert options(send.request()).priority is None


def test_a_changed_declaration_does_not_change_what_a_request_means(app: Beaver) -> None:
    """So the same job, sent again after a deployment, is a no-op and no conflict."""

    def send(to: str) -> None: ...

    before = Beaver(app.store).job(queue="old")(send)
    after = Beaver(app.store).job(queue="new", max_attempts=9)(send)
    first = before.options(id="x").enqueue("a")
    again = after.options(id="x").enqueue("a")
    assert (first.created, again.created, again.seq) == (True, False, first.seq)
    assert first.status().queue == "old"
    with pytest.raises(Conflict):
        after.options(id="x", queue="third").enqueue("a")


def test_the_same_job_by_hand_and_from_python_is_the_same_request(app: Beaver) -> None:
    @app.job(queue="mail")
    def send(to: str) -> None: ...

    made = send.options(id="x").request(to="a")
    assert made.digest == make_request("send", {"to": "a"}, id="x").digest
    assert made.payload == b'{"to":"a"}'


def test_a_call_that_fits_does_not_let_one_of_another_shape_pass(app: Beaver) -> None:
    """Calls that were checked are remembered by what decides, and by nothing less."""

    @app.job
    def send(to: str, *, copy: bool = False) -> None: ...

    send.request("a")
    send.request("a", copy=True)
    send.request(to="a")
    wrong_calls: list[Callable[[], object]] = [
        lambda: send.request("a", True),  # type: ignore[call-arg]
        send.request,  # type: ignore[list-item]
        lambda: send.request(2, to=1),  # type: ignore[arg-type, misc]
    ]
    for wrong in wrong_calls:
        for _ in range(2):
            with pytest.raises(TypeError, match=r"send\.enqueue\(\)"):
                wrong()
    with pytest.raises(TypeError, match="unexpected keyword"):
        send.options(priority=1).request("a", cc="b")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "name", ["unique", "concurrency_key", "after", "rate_limit", "cron", "expires_at"]
)
def test_options_of_later_releases_are_refused_by_name(app: Beaver, name: str) -> None:
    given: dict[str, Any] = {name: 1}
    with pytest.raises(InvalidInput, match=f"{name}= is not available"):
        app.job(**given)
    job = app.job(name="f")(lambda: None)
    with pytest.raises(InvalidInput, match=f"{name}= is not available"):
        job.options(**given)
    with pytest.raises(InvalidInput, match=f"{name}= is not available"):
        app.request("f", None, **given)


def test_what_is_no_option_at_all_is_a_type_error(app: Beaver) -> None:
    with pytest.raises(TypeError, match="no option 'qeue'"):
        app.job(qeue="mail")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="no option 'retries'"):
        app.job(name="f")(lambda: None).options(retries=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 10},
        {"max_attempts": 0},
        {"timeout": 0},
        {"queue": ""},
        {"name": "a\nb"},
        {"backoff": -1},
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(
    app: Beaver, wrong: dict[str, int] | dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        app.job(**wrong)(lambda: None)


def test_two_functions_cannot_share_a_name(app: Beaver) -> None:
    @app.job(name="same")
    def one() -> None: ...

    with pytest.raises(InvalidInput, match="two tasks are named 'same'"):

        @app.job(name="same")
        def two() -> None: ...


# -- enqueueing ----------------------------------------------------------------------------------


def test_a_call_that_does_not_fit_is_found_before_it_is_sent(app: Beaver) -> None:
    @app.job
    def add(a: int, *, b: int) -> int:
        return a + b

    for wrong in (add.enqueue, lambda: add.enqueue(1), lambda: add.enqueue(1, c=2)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"add\.enqueue"):
            wrong()  # type: ignore[call-arg]
    with pytest.raises(InvalidInput):
        add.enqueue(1, b=object())  # type: ignore[arg-type]
    assert os.listdir(app.store) == []


def test_the_context_is_no_parameter_of_enqueue(app: Beaver) -> None:
    @app.job
    def tell(ctx: JobContext, n: int) -> None: ...

    assert tell.request(3).payload == b"3"
    with pytest.raises(TypeError):
        tell.request("ctx", 3)  # type: ignore[arg-type, call-arg]


def test_enqueue_is_durable_and_its_handle_follows_the_job(app: Beaver) -> None:
    @app.job(queue="mail")
    def send(to: str) -> None: ...

    handle = send.options(tags=["a", "b"], priority=1).enqueue("x")
    assert (handle.seq, handle.created) == (1, True)
    assert Beaver(app.store).handle(handle.id).status().tags == ("a", "b")
    assert handle.status().state == "pending"
    assert [event.event for event in handle.history()] == ["ENQUEUE"]
    assert handle.explain().waiting == "slot"
    assert handle.cancel() == "cancelled"
    with pytest.raises(JobFailed, match="is cancelled") as error:
        handle.result()
    assert (error.value.state, error.value.cause) == ("cancelled", "operator")
    assert handle == app.handle(handle.id)
    assert len({handle, app.handle(handle.id)}) == 1


def test_delay_is_enqueue(app: Beaver) -> None:
    @app.job
    def send(to: str) -> None: ...

    assert send.delay("x").status().state == "pending"


def test_a_time_may_be_given_as_a_time_or_a_delay(app: Beaver) -> None:
    at = datetime(2099, 1, 1, tzinfo=UTC)

    @app.job
    def later() -> None: ...

    assert later.options(at=at).enqueue().status().ready_ms == int(at.timestamp() * 1000)
    assert later.options(delay="1h").enqueue().status().waiting == "time"
    with pytest.raises(InvalidInput, match="only one"):
        later.options(at=at, delay=1).enqueue()


def test_many_jobs_are_one_commit(app: Beaver) -> None:
    @app.job
    def add(a: int, b: int) -> int:
        return a + b

    handles = app.enqueue_many(
        [add.request(1, b=2), add.options(id="mine").request(3, 4), app.request("other", [1])]
    )
    assert [handle.seq for handle in handles] == [1, 2, 3]
    assert handles[1].id == "mine"
    assert len({event.time_ms for handle in handles for event in handle.history()}) == 1
    assert app.enqueue_many([]) == []
    with pytest.raises(Conflict):
        app.enqueue_many([add.request(1, 1), app.request("other", 2, id="mine")])
    assert app.status().pending == 3
    with pytest.raises(InvalidInput, match=r"job\.request"):
        app.enqueue_many([add])  # type: ignore[list-item]


def test_a_task_can_be_enqueued_by_its_name(app: Beaver) -> None:
    handle = app.enqueue("elsewhere", {"n": 1}, id="a", priority=3)
    assert (handle.id, handle.status().priority) == ("a", 3)

    @app.job(queue="mail")
    def here(n: int) -> None: ...

    assert app.enqueue("here", 1).status().queue == "mail"


def test_awaited_twins_do_the_same(app: Beaver) -> None:
    @app.job
    def add(a: int, b: int) -> int:
        return a + b

    async def main() -> None:
        handle = await add.aenqueue(1, 2)
        status, events = await asyncio.gather(handle.astatus(), handle.ahistory())
        assert (status.state, len(events)) == ("pending", 1)
        many = await app.aenqueue_many([add.request(n, n) for n in range(3)])
        assert [h.seq for h in many] == [2, 3, 4]
        assert (await app.astatus()).pending == 4
        assert (await app.aclient.list_jobs(limit=2))[1].seq == 2
        assert await many[0].acancel() == "cancelled"
        with pytest.raises(JobFailed):
            await many[0].aresult()

    asyncio.run(main())


# -- the rest --------------------------------------------------------------------------------------


def test_making_an_app_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Beaver(tmp_path / "absent")
    assert os.listdir(tmp_path) == []
    with pytest.raises(NotFound):
        app.status()
    monkeypatch.setenv("BEAVER_DATA", "/from/the/environment")
    assert Beaver().store == "/from/the/environment"
    monkeypatch.delenv("BEAVER_DATA")
    assert Beaver().store == "data"


def test_urls_that_cannot_be_reached_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInput, match="http://host:port"):
        Beaver("nats://localhost:4222")
    with pytest.raises(StoreUnavailable, match="no server listens"):
        Beaver("unix:/nowhere.sock").status()


def test_errors_of_jobs_show_their_end_and_keep_all(app: Beaver) -> None:
    error = failed(ResultView("a", "dead", cause="failed", error="KeyError: 1\n" + "x" * 2_000))
    assert len(str(error)) < 600
    assert str(error).startswith("job a is dead (failed): KeyError: 1")
    assert (error.job, error.state, len(error.error)) == ("a", "dead", 2_012)


def test_run_worker_needs_an_app_that_workers_can_import(
    app: Beaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="no global of an importable module"):
        app.run_worker()
    with pytest.raises(InvalidInput, match=r"no setting 'wrokers'.*workers"):
        app.run_worker(wrokers=2)  # type: ignore[call-arg]
    monkeypatch.setenv("BEAVER_GENERATION", "1")
    with pytest.raises(InvalidInput, match="__main__"):
        app.run_worker()


def test_the_package_loads_only_what_is_asked_for() -> None:
    code = (
        "import sys, beaver\n"
        "assert not [m for m in sys.modules if m.startswith('beaver.')], sys.modules\n"
        "beaver.Retry\n"
        "heavy = {'asyncio', 'aiohttp', 'prometheus_client', 'yaml', 'sqlite3'}\n"
        "assert not heavy & set(sys.modules)\n"
        "app = beaver.Beaver('x')\n"
        "app.job(name='f')(lambda: None)\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'beaver.client.embedded' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_had_and_is_listed() -> None:
    listed = {name for names in beaver._HOMES.values() for name in names}
    assert listed == set(beaver.__all__)
    for name in listed:
        assert getattr(beaver, name) is not None
    assert listed <= set(dir(beaver))
    assert beaver.__version__
    with pytest.raises(AttributeError, match="no attribute 'Bever'"):
        beaver.Bever  # noqa: B018
