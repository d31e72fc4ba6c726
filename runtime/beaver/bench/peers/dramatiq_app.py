"""The application that Dramatiq's own program imports in its workers."""

from __future__ import annotations

import os
from typing import Any

from beaver.bench.peers.base import ADDRESS_VARIABLE, QUEUE_VARIABLE, load
from beaver.bench.peers.jobs import record


def make(address: str, queue: str) -> tuple[Any, Any]:
    """Returns a broker on the server at `address`, and the actor."""
    dramatiq = load("dramatiq")
    broker = load("dramatiq.brokers.redis").RedisBroker(url=f"unix://{address}")
    return broker, dramatiq.actor(record, actor_name="record", queue_name=queue, broker=broker)


if ADDRESS_VARIABLE in os.environ:
    broker, _ = make(os.environ[ADDRESS_VARIABLE], os.environ[QUEUE_VARIABLE])
    load("dramatiq").set_broker(broker)
