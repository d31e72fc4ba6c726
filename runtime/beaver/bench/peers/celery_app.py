"""The application that Celery's own program imports in its workers."""

from __future__ import annotations

import os
from typing import Any

from beaver.bench.peers.base import ADDRESS_VARIABLE, load
from beaver.bench.peers.jobs import record

_CONNECTIONS_MAX = 64


def make(address: str) -> Any:
    """Returns an application on the server at `address`, with its task."""
    app = load("celery").Celery("bench", broker=f"redis+socket://{address}", set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_pool_limit=_CONNECTIONS_MAX,
        task_acks_late=True,
        worker_prefetch_multiplier=32,
        task_ignore_result=True,
        worker_hijack_root_logger=False,
    )
    app.task(name="record", ignore_result=True)(record)
    return app


if ADDRESS_VARIABLE in os.environ:
    worker = make(os.environ[ADDRESS_VARIABLE])
