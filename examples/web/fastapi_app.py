"""FastAPI: enqueue in a request, tell the result in another one.

uvicorn fastapi_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from jobs import queue, send_receipt

from beaver import JobFailed, NotFound, StoreUnavailable, WaitTimeout


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await queue.aclose()  # The connections of this event loop.


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order}", status_code=202)
async def place(order: int, to: str) -> dict[str, str]:
    try:
        # With the order's id, a request that the browser repeats is the same job.
        handle = await send_receipt.options(id=f"receipt-{order}").aenqueue(order, to=to)
    except StoreUnavailable as error:
        raise HTTPException(503, "try again later", {"Retry-After": "5"}) from error
    return {"job": handle.id}


@app.get("/jobs/{job}")
async def result(job: str, wait: float = 0) -> dict[str, Any]:
    try:
        return {"state": "completed", "result": await queue.handle(job).aresult(timeout=wait)}
    except WaitTimeout:
        return {"state": "pending"}
    except JobFailed as error:
        return {"state": error.state, "error": error.error}
    except NotFound as error:
        raise HTTPException(404, str(error)) from error
