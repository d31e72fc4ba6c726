"""What the processes hold: each has loaded what it needs, and nothing that it may need later."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.program import beaver, serving

APP = """
import os, sys
from beaver import Beaver

app = Beaver("unused")


@app.job(name="loaded")
def loaded():
    return {"modules": sorted(sys.modules), "variables": sorted(os.environ)}
"""

WORKER = """
beaver beaver.api beaver.api.app beaver.api.handle beaver.api.job beaver.client
beaver.client.blocking beaver.client.channel beaver.client.calls beaver.client.choosing
beaver.client.connection beaver.client.reconnecting beaver.task.programs beaver.workers.family
beaver.errors beaver.limits beaver.request beaver.request.job_options beaver.request.operations
beaver.request.options
beaver.structs beaver.structs.messages beaver.structs.questions beaver.structs.views
beaver.system beaver.system.kinship
beaver.system.ownership beaver.system.regular beaver.system.spinning beaver.task
beaver.task.builtins beaver.task.context beaver.task.directives beaver.task.output
beaver.task.parameters beaver.task.registry beaver.text beaver.text.durations beaver.text.foreign
beaver.text.jsontext beaver.text.lossless beaver.text.names beaver.text.near beaver.transport
beaver.transport.endpoint beaver.transport.framing beaver.workers beaver.workers.apps
beaver.workers.attempts beaver.workers.child beaver.workers.failures beaver.workers.inbox
beaver.workers.one_by_one beaver.workers.returned beaver.workers.slots beaver.workers.wire
beaver_model beaver_model.bounds beaver_model.hashing beaver_model.rows beaver_model.states
"""
"""Our modules in a worker: running jobs, and what an application gets of the Python API.
No engine, journal, recovery, server, or command line."""

THIRD_PARTY = "msgspec typing_extensions"
"""Packages of others in a worker; `msgspec` brings the second where it is installed."""

NOT_IN_A_WORKER = "asyncio ssl _hashlib sqlite3 logging.handlers email http urllib.request"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "loaded_app.py").write_text(APP)
    return tmp_path / "data"


def test_a_worker_has_loaded_what_it_needs_and_no_more(data: Path) -> None:
    """Pinned by name: who adds an import to a worker adds its memory to every worker."""
    with serving(data, "-A", "loaded_app:app", "--workers", "1", cwd=data.parent) as server:
        beaver("enqueue", "loaded", "--id", "j", "--data", str(data))
        server.drained(1)
        result = json.loads(beaver("show", "j", "--data", str(data), "--json"))["result"]
    loaded = set(result["modules"])
    assert "BEAVER_SERVE" not in result["variables"], "a job may start a server of its own"
    ours = {name for name in loaded if name.split(".")[0] in ("beaver", "beaver_model")}
    assert sorted(ours) == sorted(WORKER.split())
    known = sys.stdlib_module_names | {"beaver", "beaver_model", "loaded_app", "__mp_main__"}
    others = {name.split(".")[0] for name in loaded - modules_of_python()} - known
    assert others <= set(THIRD_PARTY.split()), others
    assert loaded.isdisjoint(NOT_IN_A_WORKER.split())


def modules_of_python() -> set[str]:
    """Returns what Python itself has loaded before any program runs."""
    command = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.skipif(sys.platform != "linux", reason="reads which files a process has mapped")
def test_a_server_loads_http_with_its_first_client_and_never_its_command_line(data: Path) -> None:
    """What only the start or a scrape needs is not held by a server that does neither."""
    with serving(data, "--http", "127.0.0.1:0", "--workers", "1") as server:
        maps = Path(f"/proc/{server.process.pid}/maps")
        assert "msgspec" in maps.read_text()
        for name in ("pydantic_core", "aiohttp", "_sqlite3"):
            assert name not in maps.read_text(), name
        address = json.loads((data / "server.json").read_text())["http"]
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        longest = re.search(r"^beaver_loop_stall_max_seconds (\S+)$", metrics, re.MULTILINE)
        assert longest is not None
        assert 0 < float(longest[1]) * 1000 <= server.status()["longest_stall_ms"]
        assert "aiohttp" in maps.read_text(), "so it would have been seen above"


@pytest.mark.parametrize("again", [(), ("--workers", "1")], ids=["plain", "not-plain"])
def test_the_command_that_was_given_stays_visible(data: Path, again: tuple[str, ...]) -> None:
    """Where flags are not plain the server begins anew, with the same number and arguments."""
    with serving(data, "--workers", "1", *again) as server:
        shown = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().split(b"\0")
        assert shown[shown.index(b"run") :][:3] == [b"run", b"--data", str(data).encode()]
        inside = Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert server.status()["running"]
    assert (b"BEAVER_SERVE=" in inside) == bool(again), "handed over"


@pytest.mark.parametrize(
    "again", [(), ("--grace", "1s", "--grace", "1s")], ids=["plain", "not-plain"]
)
def test_an_error_of_the_server_ends_as_that_of_any_command_does(
    data: Path, again: tuple[str, ...]
) -> None:
    """In a few lines and with its exit code, also once the program has begun anew."""
    with serving(data, "--workers", "1"):
        text = beaver("run", "--data", str(data), "--http", "off", *again, code=None)
    assert text == ""
    done = subprocess.run(
        [sys.executable, "-m", "beaver", "run", "-A", "nowhere:app", "--data", str(data), *again],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("beaver: cannot import 'nowhere:app'")
    assert "Traceback" not in done.stderr
