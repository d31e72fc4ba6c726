"""What a type checker must accept, and the types that it must see.  Never run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from beaver import (
    AsyncContextJob,
    AsyncJob,
    Beaver,
    ContextJob,
    Dead,
    Handle,
    JobContext,
    Retry,
)
from beaver.client.asynchronous import AsyncClient
from beaver.client.blocking import Client
from beaver.structs.views import Accepted, JobView, StatusView

app = Beaver("data")


@app.job
def add(a: int, b: int = 0) -> int:
    return a + b


@app.job(queue="mail", max_attempts=3, backoff="5s", timeout=30.0)
def send(to: str, *, subject: str) -> None: ...


@app.job
async def fetch(url: str) -> bytes:
    return b""


@app.job
def report(ctx: JobContext, day: str) -> dict[str, int]:
    ctx.enqueue(send, "a", subject="b")
    ctx.enqueue(add.options(delay=5), 1, b=2)
    return {}


@app.job(priority=1)
async def crawl(ctx: JobContext, url: str) -> int:
    if ctx.attempt > 1:
        raise Retry(5)
    raise Dead("no")


assert_type(add(1), int)
assert_type(add.enqueue(1, b=2), Handle[int])
assert_type(add.enqueue(1).result(timeout=5), int)
assert_type(add.delay(1), Handle[int])
assert_type(add.options(delay=5, queue="x").enqueue(1, 2).status(), JobView)
assert_type(send.enqueue("a", subject="b").result(), None)
fetching: Coroutine[Any, Any, bytes] = fetch("u")
assert_type(fetch.enqueue("u").result(), bytes)
assert_type(report.enqueue("monday").result(), dict[str, int])
assert_type(crawl.enqueue(url="u").cancel(), str)
assert_type(app.enqueue("by name", {"a": 1}, priority=1), Handle[Any])
assert_type(app.enqueue_many([add.request(1), send.request("a", subject="b")]), list[Handle[Any]])
assert_type(app.status(), StatusView)
assert_type(crawl.enqueue("u").retry(), str)
assert_type(crawl.enqueue("u").requeue({"url": "v"}), str)
assert_type(crawl.enqueue("u").discard(), str)
assert_type(app.run_worker(workers=2, executor="thread", timeout="5m", grace=1.5), int)
assert_type(app.client.status(), StatusView)


async def main(ctx: JobContext, client: Client, aclient: AsyncClient) -> None:
    assert_type(await fetch("u"), bytes)
    assert_type(await add.aenqueue(1), Handle[int])
    assert_type(await (await add.aenqueue(1)).aresult(), int)
    assert_type(await crawl(ctx, "u"), int)
    assert_type(report(ctx, day="monday"), dict[str, int])
    assert_type(client.list_jobs(state="dead"), list[JobView])
    assert_type(client.enqueue([add.request(1)]), list[Accepted])
    assert_type(await aclient.list_jobs(limit=5), list[JobView])
    assert_type(await app.aclient.show("a"), JobView)


async_job: AsyncJob[[str], bytes] = fetch
context_job: ContextJob[[str], dict[str, int]] = report
async_context_job: AsyncContextJob[[str], int] = crawl
