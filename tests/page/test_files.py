"""What a browser loads: ours and what others wrote, from here alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import beaver.page
from beaver.server.http.page import assets

PAGE = Path(beaver.page.__file__).parent
WIRE_BYTES_MAX = 150_000


def test_what_others_wrote_is_unchanged_and_has_its_licence() -> None:
    """`vendor.json` tells name, version, licence and hash of each file that is not ours."""
    told = json.loads((PAGE / "vendor.json").read_text())
    there = {path.name for path in (PAGE / "vendor").iterdir()}
    assert there == {entry["file"] for entry in told} | {entry["licence_file"] for entry in told}
    for entry in told:
        body = (PAGE / "vendor" / entry["file"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == entry["sha256"], entry["file"]
        assert entry["package"]
        assert entry["version"]
        assert entry["licence"]


def test_the_whole_page_is_small() -> None:
    """Under 150 kB over the wire, headers apart."""
    assert sum(len(asset.body) for asset in assets().values()) < WIRE_BYTES_MAX


def test_nothing_is_loaded_from_anywhere_else() -> None:
    """No address of another host stands in what is loaded, but names of XML."""
    for path, asset in assets().items():
        hosts = set(re.findall(rb"https?://[\w.-]+", asset.body)) - {b"http://www.w3.org"}
        assert not hosts, path


def test_every_module_that_is_named_is_served() -> None:
    """A wrong name in an import would be a blank page."""
    for path, asset in assets().items():
        if not path.endswith(".js"):
            continue
        for name in re.findall(rb"from '\./([\w./]+)'", asset.body):
            assert f"/page/{name.decode()}" in assets(), path
