"""What a type checker must refuse.  Each line ends with the code that mypy must give it."""

from __future__ import annotations

from beaver import Beaver, JobContext

app = Beaver("data")


@app.job
def add(a: int, b: int = 0) -> int:
    return a + b


@app.job(queue="mail")
async def send(ctx: JobContext, to: str, *, subject: str) -> None: ...


add.enqueue("1")  # expect: arg-type
add.enqueue()  # expect: call-arg
add.enqueue(1, 2, 3)  # expect: call-arg
add.enqueue(1, c=2)  # expect: call-arg
add.options(delay=5).enqueue(1, b="2")  # expect: arg-type
add.options(priority="high")  # expect: arg-type
add.delay(None)  # expect: arg-type
add.request(b=1)  # expect: call-arg
add("1")  # expect: arg-type
send.enqueue("a")  # expect: call-arg
send.enqueue(1, subject="b")  # expect: arg-type
send("a", subject="b")  # expect: arg-type, call-arg, unused-coroutine
text: str = add.enqueue(1).result()  # expect: assignment
app.job(queue=5)  # expect: call-overload
app.job(max_attempts="3")  # expect: call-overload
app.enqueue_many([add])  # expect: list-item
app.client.list_jobs(states="dead")  # expect: call-arg
add.options(qeue="mail")  # expect: call-arg
add.options(unique=True)  # expect: call-arg
add.options(backoff=5)  # expect: arg-type
app.enqueue("add", {"a": 1}, prioritty=1)  # expect: call-arg
app.enqueue("add", {"a": 1}, priority="1")  # expect: arg-type
app.request("add", {"a": 1}, run_at=5)  # expect: call-arg
app.job(qeue="mail")  # expect: call-overload
app.job(backoff=5)  # expect: call-overload
app.run_worker(wrokers=2)  # expect: call-arg
app.run_worker(executor="procss")  # expect: arg-type


async def children(ctx: JobContext) -> None:
    await app.aenqueue("add", {"a": 1}, prioritty=1)  # expect: call-arg
    ctx.enqueue_json("add", {"a": 1}, qeue="mail")  # expect: call-arg
