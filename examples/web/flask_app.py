"""Flask: enqueue in a request, tell the result in another one.

    gunicorn --workers 4 --preload flask_app:app

A forked worker process opens connections of its own, with `--preload` as well.
"""

import atexit
from typing import Any

from flask import Flask, abort, request
from jobs import queue, send_receipt

from beaver import JobFailed, NotFound, StoreUnavailable, WaitTimeout

app = Flask(__name__)
atexit.register(queue.close)


@app.post("/orders/<int:order>")
def place(order: int) -> tuple[dict[str, str], int] | tuple[str, int, dict[str, str]]:
    try:
        handle = send_receipt.options(id=f"receipt-{order}").enqueue(order, to=request.args["to"])
    except StoreUnavailable:
        return "try again later", 503, {"Retry-After": "5"}
    return {"job": handle.id}, 202


@app.get("/jobs/<path:job>")
def result(job: str) -> dict[str, Any]:
    try:
        found = queue.handle(job).result(timeout=request.args.get("wait", 0.0, float))
    except WaitTimeout:
        return {"state": "pending"}
    except JobFailed as error:
        return {"state": error.state, "error": error.error}
    except NotFound:
        abort(404)
    return {"state": "completed", "result": found}
