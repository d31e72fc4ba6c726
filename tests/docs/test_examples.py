"""The examples run, as their docstrings say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.http_api.client import Http
from tests.support.needs import need
from tests.support.program import (
    Server,
    beaver,
    environment,
    events_of,
    eventually,
    serving,
    status,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the examples in it."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    return tmp_path


def python(place: Path, *arguments: str, stdin: str = "") -> str:
    """Runs Python in the place of the examples; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(BEAVER_HTTP="off"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_burst(place: Path, module: str) -> None:
    with serving(
        place / "data", "-A", f"{module}:app", "--workers", "2", "--burst", cwd=place
    ) as s:
        assert s.wait() == 0


def results(data: Path) -> dict[str, object]:
    lines = beaver("replay", str(data), "--json").splitlines()
    acked = [event for event in map(json.loads, lines) if event["event"] == "ACK"]
    return {event["job"]: event["result"] for event in acked}


def test_the_producer_can_be_run_as_often_as_one_likes(place: Path) -> None:
    addresses = "".join(f"{n}@example.org\n" for n in range(1200)) + "\n1@example.org\n"
    first = python(place, "producer.py", "data", stdin=addresses)
    assert first == "jobs enqueued: 1200, there already: 1\n"
    again = python(place, "producer.py", "data", stdin=addresses + "new@example.org\n")
    assert again == "jobs enqueued: 1, there already: 1201\n"
    assert status(place / "data")["pending"] == 1201


def test_the_image_pipeline_makes_thumbnails_and_one_sheet_of_them(place: Path) -> None:
    python(place, "images.py", "make", str(place / "album"), "3")
    data = place / "data"
    payload = json.dumps({"folder": str(place / "album")})
    beaver("enqueue", "album", payload, "--id", "summer", "--data", str(data))
    run_burst(place, "images")
    found = results(data)
    assert found["summer"] == 3
    assert found["summer/sheet"] == f"3 thumbnails in {place / 'album' / 'sheet.ppm'}"
    assert (place / "album" / "sheet.ppm").read_bytes().startswith(b"P6\n8 24\n255\n")
    assert sorted(path.name for path in (place / "album" / "thumbs").iterdir()) == [
        "000.ppm",
        "001.ppm",
        "002.ppm",
    ]


def test_an_album_without_pictures_is_dead_at_once(place: Path) -> None:
    data = place / "data"
    beaver(
        "enqueue", "album", json.dumps({"folder": str(place)}), "--id", "none", "--data", str(data)
    )
    run_burst(place, "images")
    assert events_of(data, "none") == ["ENQUEUE", "DISPATCH", "DEAD"]


def test_a_chain_of_reports_has_each_run_once(place: Path) -> None:
    data = place / "data"
    payload = json.dumps({"number": 1, "every": 0.05, "last": 4})
    beaver("enqueue", "report", payload, "--id", "report-1", "--data", str(data))
    run_burst(place, "periodic")
    assert list(results(data)) == ["report-1", "report-2", "report-3", "report-4"]


def test_a_snoozing_job_comes_back_until_it_is_cancelled(place: Path) -> None:
    data = place / "data"
    beaver("enqueue", "clean_up", '{"every": 0.05}', "--id", "clean-up", "--data", str(data))
    with serving(data, "-A", "periodic:app", "--workers", "1", cwd=place) as server:
        eventually(lambda: events_of(data, "clean-up").count("RELEASE") >= 3, "it came back")
        beaver("cancel", "clean-up", "--data", str(data))
    names = events_of(data, "clean-up")
    assert names[-1] == "CANCEL"
    assert "RETRY" not in names
    said = " clean_up [clean-up] cleaned up\n"
    assert sum(line.endswith(said) for line in server.stdout) >= 3


def test_the_shop_takes_an_order_from_the_command_line_and_from_python(place: Path) -> None:
    data = place / "data"
    with serving(data, "-A", "shop:app", "--workers", "2", cwd=place):
        said = python(place, "shop.py", "order", "17")
    assert "order-17 is on disk" in said
    assert "'order': 17" in said
    assert events_of(data, "receipt-17")[0] == "ENQUEUE"


def test_the_tests_of_the_shop_pass(place: Path) -> None:
    python(place, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py")


def test_every_example_is_in_the_list() -> None:
    text = (EXAMPLES / "README.md").read_text()
    names = [path.name for kind in ("py", "sh", "mjs") for path in EXAMPLES.glob(f"*.{kind}")]
    assert [name for name in names if f"({name})" not in text] == []


@pytest.mark.parametrize("worker", [["sh", "worker.sh"], ["node", "worker.mjs"]])
def test_a_worker_in_another_language_completes_a_job_that_fails_first(
    tmp_path: Path, worker: list[str]
) -> None:
    """It is short, and goes on with a server that was killed and started again."""
    program = EXAMPLES / worker[1]
    assert len(program.read_text().splitlines()) < 50
    for tool in {"sh": ("curl", "jq"), "node": ("node",)}[worker[0]]:
        need(None if shutil.which(tool) else f"{tool} is not installed")
    data, text = tmp_path / "data", tmp_path / "text"
    server = Server(data, "--http", "127.0.0.1:0", "--workers", "1")
    server.ready()
    http = Http(data)
    url = f"http://{http.host}:{http.port}"
    process = subprocess.Popen(
        [worker[0], str(program), url], env=environment(BEAVER_TOKEN=http.token)
    )
    try:
        job = {"task": "count_words", "payload": {"path": str(text)}, "backoff": "200ms"}
        http.post("/v1/jobs", {"id": "first", "max_attempts": 1000, **job})
        eventually(lambda: "RETRY" in events_of(data, "first"), "it has failed")
        text.write_text("to be or not to be\n")
        assert http.ended("first") == {"state": "completed", "result": {"words": 6}}
        server.kill()
        with serving(data, "--http", f"127.0.0.1:{http.port}", "--workers", "1"):
            http.post("/v1/jobs", {"id": "second", "max_attempts": 1, **job})
            assert http.ended("second") == {"state": "completed", "result": {"words": 6}}
    finally:
        process.kill()
        process.wait()
