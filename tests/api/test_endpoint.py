"""Finding a server: a hint is believed only when it has been proved."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from beaver.client import blocking
from beaver.errors import InvalidInput, NotFound, StoreUnavailable
from beaver.transport import endpoint
from tests.api.conftest import ModelServer, Serve


def info(path: str, **more: Any) -> endpoint.ServerInfo:
    return endpoint.ServerInfo(pid=os.getpid(), socket=path, store="ab" * 16, **more)


def told(data: str) -> endpoint.ServerInfo:
    found = endpoint.read(data)
    assert found is not None
    return found


def test_server_json_is_private_and_read_back(data: str) -> None:
    endpoint.write(data, info("/x", http="http://127.0.0.1:9090", epoch=3))
    path = os.path.join(data, "server.json")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    found = told(data)
    assert (found.socket, found.http, found.epoch) == ("/x", "http://127.0.0.1:9090", 3)
    assert os.listdir(data) == ["server.json"]


def test_writing_again_replaces_what_a_dead_server_left(data: str) -> None:
    endpoint.write(data, info("/old"))
    endpoint.write(data, info("/new"))
    assert told(data).socket == "/new"


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "one"}', b"[]", b"\xff"])
def test_an_unreadable_hint_is_no_server(data: str, content: bytes) -> None:
    with open(os.path.join(data, "server.json"), "wb") as file:
        file.write(content)
    assert endpoint.read(data) is None
    assert blocking.find(data) is None


def test_unknown_fields_of_a_later_release_are_ignored(data: str) -> None:
    endpoint.write(data, info("/x"))
    path = os.path.join(data, "server.json")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace("{", '{"later": 1,', 1))
    assert told(data).socket == "/x"


def test_a_server_is_found_by_its_directory(data: str, server: ModelServer) -> None:
    with blocking.connect(data) as found:
        assert (found.greeting.store, found.greeting.epoch) == (server.store, 7)


def test_a_hint_that_outlived_its_server_finds_nobody(data: str) -> None:
    endpoint.write(data, info(os.path.join(data, "beaver.sock")))
    assert blocking.find(data) is None
    with pytest.raises(StoreUnavailable, match="no server runs on"):
        blocking.connect(data)


def test_another_store_behind_the_socket_is_not_believed(data: str, server: ModelServer) -> None:
    endpoint.write(data, endpoint.ServerInfo(pid=1, socket=told(data).socket, store="cd"))
    assert blocking.find(data) is None


def test_a_copy_of_a_data_directory_does_not_reach_the_original(
    tmp_path: Path, data: str, server: ModelServer
) -> None:
    """The copy holds server.json and the very same store id."""
    copy = str(tmp_path / "copy")
    os.mkdir(copy)
    shutil.copy(os.path.join(data, "server.json"), copy)
    assert told(copy).store == server.store
    assert blocking.find(copy) is None


def test_a_directory_that_was_moved_still_reaches_its_server(
    tmp_path: Path, data: str, server: ModelServer
) -> None:
    moved = str(tmp_path / "moved")
    os.rename(data, moved)
    try:
        with blocking.connect(moved) as found:
            assert found.greeting.store == server.store
    finally:
        os.rename(moved, data)


def test_no_directory_is_not_found_and_a_file_is_not_usable(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no data directory"):
        blocking.connect(tmp_path / "absent")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreUnavailable, match="is a file"):
        blocking.connect(file)
    with pytest.raises(NotFound):
        blocking.connect(file / "below")
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_the_socket_of_a_long_path_moves_to_a_short_private_place(
    tmp_path: Path, runtime_directory: str
) -> None:
    long = tmp_path / ("d" * 120) / ("e" * 80)
    long.mkdir(parents=True)
    path = endpoint.socket_path(str(long))
    assert len(path.encode()) <= endpoint.SOCKET_PATH_BYTES_MAX + 3
    directory = os.path.dirname(path)
    assert os.path.dirname(directory) == runtime_directory
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert endpoint.socket_path(str(long)) == path, "the same place after a crash"
    endpoint.write(str(long), info(path))
    endpoint.remove(str(long))
    assert os.listdir(runtime_directory) == []
    assert os.listdir(long) == []


def test_a_runtime_directory_that_others_could_enter_is_not_used(
    tmp_path: Path, runtime_directory: str
) -> None:
    long = tmp_path / ("d" * 120)
    long.mkdir()
    taken = os.path.dirname(endpoint.socket_path(str(long)))
    os.chmod(taken, 0o777)
    other = os.path.dirname(endpoint.socket_path(str(long)))
    assert other != taken
    os.rmdir(other)


def test_a_server_on_a_long_path_is_found(
    tmp_path: Path, runtime_directory: str, serve: Serve
) -> None:
    long = tmp_path / ("d" * 200)
    long.mkdir()
    serve(str(long))
    assert os.listdir(runtime_directory)
    with blocking.connect(long) as found:
        assert found.status().running


def test_a_socket_in_the_directory_is_made_free_for_the_next_server(data: str) -> None:
    path = endpoint.socket_path(data)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)
    assert os.path.exists(path)
    assert endpoint.socket_path(data) == path
    assert not os.path.exists(path)


def test_a_peer_that_talks_nonsense_is_named(data: str) -> None:
    path = os.path.join(data, "beaver.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"\x03\x00\x00\x00\x93\x00\x05")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises((StoreUnavailable, InvalidInput)):
            blocking.connect(f"unix:{path}")
        thread.join()


def test_a_unix_url_reaches_a_server_and_others_are_refused(data: str, server: ModelServer) -> None:
    path = told(data).socket
    with blocking.connect(f"unix:{path}") as found:
        assert found.status().running
    with blocking.connect(f"unix://{path}") as found:
        assert found.status().running
    with pytest.raises(StoreUnavailable, match="no server listens"):
        blocking.connect("unix:/nowhere/beaver.sock")
    with pytest.raises(InvalidInput, match="a data directory, a unix: URL"):
        blocking.connect("http://localhost:9090")
