"""Targets: a directory and a real S3 server keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beaver.errors import InvalidInput
from beaver.shipping.targets import Target, TargetFailed, open_target
from tests.backup.stores import DISK
from tests.shipping.places import s3_server


@pytest.fixture(scope="module", params=["directory", "s3", "memory"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    place = tmp_path_factory.mktemp("target")
    if request.param == "directory":
        yield open_target(str(place / "t"))
        return
    if request.param == "memory":
        pytest.importorskip("obstore")
        yield open_target("memory:///")
        return
    with s3_server(place) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield open_target("s3://bucket/some/prefix")


def test_an_object_is_made_once_whoever_tries(target: Target) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: target.put_new("once/x", b"%d" % n), range(16)))
    assert made.count(True) == 1
    found = target.read("once/x")
    assert found is not None
    assert found.data == b"%d" % made.index(True)


def test_an_object_is_swapped_only_by_who_has_read_it_last(target: Target) -> None:
    target.put_new("swap", b"0")
    for turn in (100, 200, 300):
        read = target.read("swap")
        assert read is not None
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda n, r=read: target.swap("swap", b"%d" % n, r.version),
                                 range(turn, turn + 8)))  # fmt: skip
        assert done.count(True) == 1
        now = target.read("swap")
        assert now is not None
        assert now.data == b"%d" % (turn + done.index(True))
        assert not target.swap("swap", b"late", read.version)
    assert not target.swap("nothing", b"x", "0" * 32)


def test_what_is_listed_is_what_is_there(target: Target, tmp_path: Path) -> None:
    target.put_new("list/a", b"12345")
    (tmp_path / "large").write_bytes(bytes(range(256)) * (9 << 12))
    file = DISK.open(str(tmp_path / "large"))
    target.put_file("list/large", file)
    target.put_file("list/large", file)
    found = {key: size for key, size in target.list().items() if key.startswith("list/")}
    assert found == {"list/a": 5, "list/large": file.size()}
    copy = target.open("list/large", tmp_path)
    assert copy.size() == file.size()
    assert copy.pread(1000, 9 << 20) == file.pread(1000, 9 << 20)
    copy.close()
    file.close()
    target.delete("list/a")
    target.delete("list/a")
    assert "list/a" not in target.list()
    assert target.read("list/a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_target_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TargetFailed, match="file"):
        open_target(str(tmp_path / "file" / "below")).put_new("x", b"")
    with pytest.raises(InvalidInput, match="s3://"):
        open_target("ftp://host/x")
    pytest.importorskip("obstore")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = open_target("s3://name:secret@bucket/prefix")
    assert "secret" not in found.name
