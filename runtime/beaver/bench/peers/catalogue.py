"""The peers that there are, by name."""

from __future__ import annotations

from typing import Final

from beaver.bench.peers.base import Peer
from beaver.bench.peers.beanstalk import Beanstalkd
from beaver.bench.peers.postgres import Procrastinate
from beaver.bench.peers.redis_blocking import Celery, Dramatiq, Rq
from beaver.bench.peers.redis_saq import Saq
from beaver.bench.peers.sqlite import Huey

PEERS: Final[dict[str, type[Peer]]] = {
    peer.name: peer for peer in (Beanstalkd, Huey, Rq, Dramatiq, Saq, Celery, Procrastinate)
}
