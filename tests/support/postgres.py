"""A PostgreSQL server of our own, for as long as tests need it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import need
from tests.support.program import eventually

USER = "postgres"


def _find(name: str) -> str | None:
    places = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))


@contextmanager
def postgres() -> Iterator[str]:
    """Runs a server on a socket in a new directory; yields its URL."""
    initdb, server = _find("initdb"), _find("postgres")
    need(None if initdb and server else "PostgreSQL is not installed (Debian: postgresql)")
    assert initdb is not None
    assert server is not None
    # It refuses to run as root, and its user must be able to enter.
    user = USER if os.geteuid() == 0 else None
    directory = tempfile.mkdtemp(prefix="bvr-pg-", dir="/tmp")
    if user is not None:
        shutil.chown(directory, user)
    data = f"{directory}/data"
    running: subprocess.Popen[bytes] | None = None
    try:
        made = [initdb, "--auth", "trust", "--username", USER, "--no-sync", data]
        subprocess.run(made, user=user, check=True, capture_output=True, timeout=120, cwd="/")
        settings = {"listen_addresses": "", "unix_socket_directories": directory, "fsync": "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        running = subprocess.Popen(
            [server, "-D", data, *flags],
            user=user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"postgresql://{USER}@/postgres?host={directory}"
        eventually(lambda: _answers(url), "PostgreSQL answers")
        yield url
    finally:
        if running is not None:
            running.terminate()
            running.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
