"""Asks a server from an address beyond loopback: `python -m tests.http_api.outside DATA`.

To be run in a network namespace of its own, where that address reaches nobody else.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

from beaver.access.tokens import create
from beaver.system.clock import SystemEntropy
from tests.http_api.client import Http
from tests.support.program import serving

OUTSIDE = "10.9.8.7"
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916
_UP_AND_RUNNING = 0x41


def raise_network() -> None:
    """Gives the loopback device a second address, which is none of loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sH14x", b"lo", _UP_AND_RUNNING)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, up)
        address = socket.inet_aton(OUTSIDE)
        named = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, address)
        fcntl.ioctl(any_socket, _SIOCSIFADDR, named)


def main(data: Path) -> None:
    """Prints which status each path has, by address and role."""
    raise_network()
    found: dict[str, object] = {}
    with serving(data, "--http", "0.0.0.0:0", "--http-insecure"):
        secrets = {"": ""} | {
            role: create(str(data), role, now_ms=1, entropy=SystemEntropy())[1]
            for role in ("produce", "read")
        }
        for address in ("127.0.0.1", OUTSIDE):
            statuses: dict[str, dict[str, int]] = {}
            for path in ("/metrics", "/healthz", "/readyz", "/v1/status"):
                for role, token in secrets.items():
                    http = Http(data, token)
                    http.host = address
                    statuses.setdefault(path, {})[role] = http.get(path).status
            found[address] = statuses
        http = Http(data)
        http.host = OUTSIDE
        found["hosts"] = {
            host: http.get("/v1/status", {"Host": host}).status
            for host in (OUTSIDE, "10.9.8.6", "0.0.0.0")
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
