"""Where a microsecond goes: every sample has a layer, and the picture is to scale."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import beaver
import beaver_model
from beaver.bench import flame, profile, report

SVG = "{http://www.w3.org/2000/svg}"
ROOTS = (Path(beaver.__file__).parent, Path(beaver_model.__file__).parent)


def test_a_sample_belongs_to_its_innermost_layer() -> None:
    """What the engine calls is not the engine's time, and what nobody knows is told apart."""
    layers = dict(profile.LAYERS)
    engine = "engine/engine:Engine._commit"
    assert profile.layer_of(("loop",)) in layers
    assert profile.layer_of(("loop", engine)).startswith("engine")
    assert profile.layer_of(("loop", engine, "system/disk:SystemFile.pwrite_durable")) == (
        "write and sync"
    )
    # A function that no layer knows belongs to whoever called it.
    assert profile.layer_of(("loop", engine, "beaver/unheard_of:f")).startswith("engine")
    assert profile.layer_of(("loop", "beaver/unheard_of:f")) == profile.OTHER


@pytest.mark.parametrize("beginning", [b for _, many in profile.LAYERS[1:] for b in many])
def test_a_layer_names_modules_that_are_there(beginning: str) -> None:
    """Else what moved would silently be counted as something else."""
    place, _, function = beginning.partition(":")
    directory, _, module = place.partition("/")
    roots = [r for r in (*ROOTS, *(path for path in ROOTS[0].rglob("*") if path.is_dir()))
             if r.name == directory]  # fmt: skip
    assert len(roots) == 1
    if module:
        path = roots[0] / f"{module}.py"
        assert path.exists()
        assert not function or f"def {function}(" in path.read_text()


def test_a_flame_graph_is_to_scale_and_stands_on_its_callers() -> None:
    stacks = {("a",): 1.0, ("a", "m:b"): 2.0, ("a", "m:b", "m:<c>"): 1.0}
    root = ET.fromstring(flame.flame("a & b", stacks, "us"))
    found = {}
    for group in root.iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and rect is not None and title.text is not None  # noqa: PT018
        found[title.text.rpartition(":")[0]] = rect.attrib
    widths = {name: float(rect["width"]) for name, rect in found.items()}
    assert widths == {"all": 1200, "a": 1200, "m:b": 900, "m:<c>": 300}
    heights = [float(found[name]["y"]) for name in ("all", "a", "m:b", "m:<c>")]
    assert heights == sorted(heights, reverse=True)


def test_the_table_divides_by_jobs_and_adds_up() -> None:
    found = {"load": (10, {("loop",): 50.0, ("loop", "engine/engine:f"): 30.0})}
    lines = profile.to_markdown(found).splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines[2:]}
    assert cells[profile.LAYERS[0][0]] == "5.00"
    assert cells["**all of the loop**"] == "**8.00**"


@pytest.mark.bench
def test_a_real_server_is_sampled_under_every_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each load shows its own work, and the page keeps its prose."""
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{profile.BEGIN}\nold\n{profile.END}\n\nAfter.\n")
    monkeypatch.setattr("sys.argv", ["profile", "--seconds", "0.3", "--report", str(page)])
    monkeypatch.setattr(profile, "print", lambda text: None, raising=False)
    profile.main()
    text = page.read_text()
    assert text.startswith("Before.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    rows = {
        cells[1].strip(): [float(cell.strip(" *").replace(",", "")) for cell in cells[2:-1]]
        for line in text.splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 7 and "---" not in line
        if cells[1].strip() != "microseconds a job"
    }
    assert min(rows["write and sync"]) > 0
    assert min(rows["apply: rows and indexes"]) > 0
    clients, batches, drain, both = rows["wire to the workers"]
    assert max(clients, batches) < min(drain, both)
    total = rows["**all of the loop**"]
    assert rows["everything else"][0] < 0.2 * total[0] if "everything else" in rows else True
    ET.fromstring((tmp_path / "page-flame.svg").read_text())
    assert report.BEGIN not in text
