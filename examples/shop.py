"""A small shop: jobs as functions, with everything that a real application needs of a queue.

    beaver run -A shop:app          (in this directory; or: python shop.py run)
    python shop.py order 17         enqueues an order and waits for it

`test_shop.py` beside it shows how such an application is tested without a server.
"""

from __future__ import annotations

import sys

from beaver import Beaver, Dead, JobContext, JobFailed, Retry

app = Beaver("data")

STOCK = {"chair": 3, "table": 1}


@app.job(queue="orders", max_attempts=3)
def take_order(ctx: JobContext, number: int, item: str, to: str) -> dict[str, int | str]:
    """Takes an order.  The two jobs that follow come in together with its success, or not."""
    if item not in STOCK:
        raise Dead(f"we do not sell {item}")
    charged = charge(number, ctx.idempotency_key)
    ctx.enqueue(send_receipt.options(id=f"receipt-{number}"), number, to=to)
    ctx.enqueue(pack.options(delay="1m", priority=7), number, item)
    return {"order": number, "charge": charged}


@app.job(queue="mail", backoff={"kind": "exponential", "base_ms": 2_000}, timeout="30s")
async def send_receipt(ctx: JobContext, number: int, to: str) -> str:
    """Sends mail.  The first attempt finds the mail server busy."""
    if ctx.attempt == 1:
        raise Retry(error="the mail server is busy")
    return f"receipt for {number} sent to {to}"


@app.job
def pack(number: int, item: str) -> None:
    """Packs an order; standard output carries the job's id."""
    print(f"packing {item} for order {number}")


def charge(number: int, key: str) -> str:
    """Stands for a payment service that does nothing twice for the same key."""
    return f"{number}/{key}"


def main(arguments: list[str]) -> int:
    """Serves the jobs, or enqueues one."""
    match arguments:
        case ["run"]:
            return app.run_worker(workers=2)
        case ["order", number]:
            order = take_order.options(id=f"order-{number}")
            handle = order.enqueue(int(number), "chair", to="ada@example.org")
            print(handle.id, "is on disk" if handle.created else "was there already")
            try:
                print(handle.result(timeout=30))
            except JobFailed as failed:
                print(failed)
                return 1
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
