"""The examples of the reference, run in order against a server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.served import ServerProcess

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "python-api.md"
EXAMPLES = ROOT / "examples"


def test_the_examples_of_the_reference_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, *examples = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert tasks.startswith("# tasks.py")
    assert len(examples) >= 6
    server = ServerProcess(tmp_path)
    (tmp_path / "tasks.py").write_text(tasks)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    command = ["-m", "beaver", "run", "-A", "tasks:app", "--workers", "2", "--http", "off"]
    server.start(command)
    try:
        names: dict[str, object] = {}
        for number, example in enumerate(examples, 1):
            exec(compile(example, f"example {number} of {PAGE.name}", "exec"), names)
    finally:
        sys.modules.pop("tasks", None)
        server.kill()


def test_the_tables_of_the_reference_name_what_there_is() -> None:
    import beaver
    from beaver import errors

    page = PAGE.read_text()
    told = page.split("## Errors")[1]
    for name in re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE):
        assert issubclass(getattr(beaver, name), errors.BeaverError)
    for name in ("Retry", "Snooze", "Cancel", "Dead"):
        assert f"`{name}(" in page


@pytest.mark.parametrize("method", ["result", "status", "cancel", "history", "explain"])
def test_every_method_of_a_handle_has_its_awaited_twin(method: str) -> None:
    from beaver import Handle

    assert f"`{method}(" in PAGE.read_text()
    assert getattr(Handle, method).__doc__ == getattr(Handle, f"a{method}").__doc__


def test_the_example_application_passes_its_own_tests() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "test_shop.py"],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout


def test_the_example_application_runs_as_its_docstring_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    server = ServerProcess(tmp_path)
    server.start(["-m", "beaver", "run", "-A", "shop:app", "--workers", "1", "--http", "off"])
    try:
        told = subprocess.run(
            [sys.executable, str(EXAMPLES / "shop.py"), "order", "17"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "order-17 is on disk" in told.stdout
        assert "'order': 17" in told.stdout
        assert server.stop() == 0
    finally:
        server.kill()
