"""What `@app.job` refuses to declare, since no worker could run it as it was meant."""

from __future__ import annotations

import asyncio
import functools
import importlib
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import pytest

import beaver
from beaver import Beaver, InvalidInput, JobContext
from beaver import JobContext as Context


@pytest.fixture
def app(data: str) -> Beaver:
    return Beaver(data)


def real(function: Any, **annotations: object) -> Any:
    """Gives annotations as values, where this module has them as text."""
    function.__annotations__.update(annotations)
    return function


# -- generators, classes, methods ----------------------------------------------------------------


def test_a_generator_function_is_refused_since_a_call_runs_none_of_it(app: Beaver) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def more() -> AsyncIterator[int]:
        yield 1

    class Callable:
        __name__ = "called"

        def __call__(self) -> Iterator[int]:
            yield 1

    for function in (numbers, more, Callable()):
        with pytest.raises(InvalidInput, match=r"generator function.*return a list"):
            app.job(function)
    assert len(app.registry) == 0


def test_a_function_that_only_returns_what_a_generator_gave_is_fine(app: Beaver) -> None:
    app.job(lambda: None).task  # noqa: B018
    assert app.job(name="g")(lambda: list(range(3)))() == [0, 1, 2]


def test_a_method_is_refused_since_no_worker_has_its_object(app: Beaver) -> None:
    with pytest.raises(InvalidInput, match=r"Mailer\.send is a method.*'self'"):

        class Mailer:
            @app.job
            def send(self, to: str) -> None: ...

    with pytest.raises(InvalidInput, match=r"Mailer2\.send is a method.*'cls'"):

        class Mailer2:
            @app.job
            def send(cls, to: str) -> None: ...  # noqa: N805


def test_a_class_is_no_job_but_may_hold_jobs_and_lend_a_bound_method(app: Beaver) -> None:
    class Tasks:
        @app.job
        def add(a: int, b: int) -> int:  # noqa: N805
            return a + b

        def send(self, to: str) -> str:
            return to

    assert Tasks.add(1, 2) == 3
    assert app.job(Tasks().send)("x") == "x"
    with pytest.raises(InvalidInput, match="is a class"):
        app.job(Tasks)


def test_a_name_that_is_given_counts_also_where_it_is_empty(app: Beaver) -> None:
    with pytest.raises(InvalidInput, match="name: 1 to 200 bytes"):
        app.job(name="")(lambda: None)
    with pytest.raises(InvalidInput, match="has no name of its own: give one"):
        app.job(functools.partial(print, 1))
    assert app.job(name="p")(functools.partial(print, 1)).name == "p"


# -- the context ---------------------------------------------------------------------------------


def test_a_ctx_without_an_annotation_is_told_how_to_get_the_context(app: Beaver) -> None:
    with pytest.raises(InvalidInput, match=r"'ctx' of .*report.* write `ctx: JobContext`"):

        @app.job
        def report(ctx, day) -> None: ...  # type: ignore[no-untyped-def] # that is the case

    with pytest.raises(InvalidInput, match="write `ctx: JobContext`"):
        app.job(lambda ctx=None: None)


@pytest.mark.parametrize(
    "annotation",
    [
        "JobContext | None",
        "Optional[JobContext]",
        "None | beaver.JobContext",
        "'Optional[JobContext]'",
        JobContext | None,
        Optional[JobContext],  # noqa: UP045
        Optional["JobContext"],
        Annotated[JobContext, "of the job"],
    ],
)
def test_an_optional_context_is_refused_since_it_is_always_given(
    app: Beaver, annotation: object
) -> None:
    def report(day: int, ctx: object = None) -> None: ...

    with pytest.raises(InvalidInput, match=r"every attempt has a context.*`ctx: JobContext`"):
        app.job(real(report, ctx=annotation))
    assert len(app.registry) == 0


@pytest.mark.parametrize(
    "annotation",
    [JobContext, "JobContext", "beaver.JobContext", "Context", "'JobContext'", "unseen.JobContext"],
)
def test_the_context_is_known_however_it_is_written(app: Beaver, annotation: object) -> None:
    assert Context is beaver.JobContext

    def report(any_name: object, day: int) -> None: ...

    job = app.job(real(report, any_name=annotation))
    assert job.task.parameters.context == "any_name"
    assert job.request(3).payload == b"3"


def test_a_ctx_of_another_type_is_an_argument(app: Beaver) -> None:
    @app.job
    def draw(ctx: dict[str, int]) -> None: ...

    assert draw.request({"a": 1}).payload == b'{"args":[{"a":1}],"kwargs":{}}'


# -- two of one name -----------------------------------------------------------------------------


def test_a_task_defined_twice_in_one_module_is_refused_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twice.py").write_text(
        textwrap.dedent("""
        from beaver import Beaver
        app = Beaver("data")
        @app.job
        def send(to): ...
        @app.job
        def send(to, subject): ...
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInput) as refused:
        importlib.import_module("twice")
    assert "two tasks are named 'send'" in str(refused.value)
    assert str(refused.value).count("twice.py:") == 2
    told = subprocess.run(
        [sys.executable, "-m", "beaver", "run", "-A", "twice:app", "--http", "off"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (told.returncode, "two tasks are named 'send'" in told.stderr) == (2, True)


def test_a_function_made_twice_by_one_line_is_refused_too(app: Beaver) -> None:
    def declare(n: int) -> None:
        @app.job
        def count() -> int:
            return n

    declare(1)
    with pytest.raises(InvalidInput, match="two tasks are named 'count'"):
        declare(2)


def test_a_reloaded_module_replaces_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Beaver
) -> None:
    file = tmp_path / "reloaded.py"
    file.write_text("from test_declaring_app import app\n@app.job\ndef f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "test_declaring_app.py").write_text("from beaver import Beaver\napp = Beaver('x')")
    module = importlib.import_module("reloaded")
    file.write_text("from test_declaring_app import app\n\n@app.job\ndef f(): return 22\n")
    importlib.invalidate_caches()
    importlib.reload(module)
    assert module.app.registry.get("f").function() == 22
    for name in ("reloaded", "test_declaring_app"):
        sys.modules.pop(name)


def test_what_is_typed_again_at_a_prompt_replaces_what_was(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="from beaver import Beaver\napp = Beaver('x')\n"
        "@app.job\ndef f(): return 1\n\n@app.job\ndef f(): return 2\n\nprint('got', f())\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "got 2" in told.stdout, told.stderr


# -- between a producer and the function ---------------------------------------------------------


def test_a_wrong_key_for_a_known_task_is_refused_before_it_is_sent(app: Beaver) -> None:
    @app.job
    def two(a: int, bee: int = 0) -> int:
        return a + bee

    with pytest.raises(InvalidInput, match=r"no parameter 'zz'.*") as refused:
        app.enqueue("two", {"a": 1, "zz": 2})
    assert "'two': a, bee" in str(refused.value)
    for wrong in ({"a": 1, "be": 2}, {"bee": 2}, {"args": [1, 2, 3], "kwargs": {}}, {"zz": 1}):
        with pytest.raises(InvalidInput, match="'two'"):
            app.enqueue("two", wrong)
        with pytest.raises(InvalidInput, match="'two'"):
            asyncio.run(app.aenqueue("two", wrong))
    with pytest.raises(InvalidInput, match="did you mean bee"):
        app.request("two", {"a": 1, "be": 2})
    assert app.enqueue("two", {"a": 1, "bee": 2}).created
    assert app.enqueue("elsewhere", {"anything": 1}).created


def test_a_payload_that_was_forgotten_or_is_a_list_of_arguments_is_refused(app: Beaver) -> None:
    @app.job
    def add(a: int, b: int = 0) -> int:
        return a + b

    for wrong in (None, [1, 2]):
        with pytest.raises(InvalidInput, match=r'"args": \[\.\.\.\]'):
            app.enqueue("add", wrong)
    assert app.request("add", {"args": [1, 2], "kwargs": {}})
    assert add.request(None).payload == b'{"args":[null],"kwargs":{}}'  # type: ignore[arg-type]


def test_a_job_in_place_of_its_name_and_a_name_in_place_of_a_job_are_told(app: Beaver) -> None:
    @app.job
    def add(a: int) -> int:
        return a

    with pytest.raises(InvalidInput, match=r"it is add\.enqueue\(\.\.\.\)"):
        app.enqueue(add, 1)  # type: ignore[arg-type]

    @app.job(max_attempts=1)
    def parent(ctx: JobContext) -> None:
        ctx.enqueue("add", 1)  # type: ignore[arg-type]

    with app.testing() as testing:
        parent.enqueue()
        testing.drain()
        (dead,) = testing.jobs("dead")
    assert dead.error is not None
    assert "by its name it is ctx.enqueue_json('add', ...)" in dead.error


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({1: 2}, "the key 1 is no text"),
        ({"a": [{"b": {None: 1}}]}, r"a\[0\]\.b: the key None is no text"),
        ([({True: 1},)], r"\[0\]\[0\]: the key True"),
        ({"a": {2.5: 1}, "long": 1 << 80}, "a: the key 2.5"),
        ({"a": [1, float("nan")]}, r"a\[1\]: nan is no JSON number"),
        (float("inf"), "inf is no JSON number"),
    ],
)
def test_a_payload_that_json_would_change_is_refused_with_its_place(
    app: Beaver, wrong: object, said: str
) -> None:
    job = app.job(name="f")(lambda value: None)
    for call in (lambda: app.enqueue("elsewhere", wrong), lambda: job.enqueue(wrong)):
        with pytest.raises(InvalidInput, match=rf"payload: .*{said}"):
            call()
