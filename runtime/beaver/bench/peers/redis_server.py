"""Redis with `appendfsync always`, for the queues that live in it."""

from __future__ import annotations

from pathlib import Path

from beaver.bench.peers.base import Peer, find_program, load

SETUP = "Redis, `appendonly yes`, `appendfsync always`"


def start_redis(peer: Peer, directory: Path) -> str:
    """Starts a server for one peer; returns the path of its socket."""
    redis = load("redis")
    path = str(directory / "socket")
    daemon = peer.daemon(
        find_program("redis-server"),
        *("--port", "0", "--unixsocket", path, "--dir", str(directory)),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        *("--auto-aof-rewrite-percentage", "0", "--daemonize", "no"),
    )

    def answers() -> bool:
        if not Path(path).exists():
            return False
        try:
            with redis.Redis(unix_socket_path=path) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    daemon.wait_for(answers)
    return path
