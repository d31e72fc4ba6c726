"""Where a server listens, and how a client finds it: `server.json` and the socket's path.

`server.json` is a hint and nothing more.  It outlives a killed server, and it is copied with
a data directory; so a client believes it only after it has connected, said hello and found
the store that the file names, and only if the file was written for this very directory (its
device and inode stand in it: a copy of a store carries the same store id).

What may not live here: the protocol (`framing`) and the calls (`client`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from beaver.errors import NO_ROOM, DiskFull, NotFound, ServerGone, StoreUnavailable
from beaver.system.ownership import ROOT, is_trusted, peer_of, user_name
from beaver.system.regular import read_regular
from beaver.transport import framing
from beaver_model.hashing import blake2b

if TYPE_CHECKING:
    import asyncio

FILE_NAME: Final = "server.json"
FILE_BYTES_MAX: Final = 64 << 10
"""More than `server.json` can hold."""
PHASE_NAME: Final = "phase"
PHASE_BYTES_MAX: Final = 64
PHASES: Final = ("starting", "ending")
SOCKET_NAME: Final = "beaver.sock"
SOCKET_PATH_BYTES_MAX: Final = 100
"""The kernel takes 107 bytes on Linux and 103 on macOS; some are left for a suffix."""
CONNECT_S: Final = 5.0
"""How long connecting and hello may take before the server counts as not there."""


class ServerInfo(msgspec.Struct, frozen=True):
    """What `server.json` holds.  Unknown fields are ignored, so that it may grow."""

    pid: int
    socket: str
    store: str
    http: str = ""
    """`http://host:port`, or empty where HTTP is off."""
    started_ms: int = 0
    epoch: int = 0
    directory: str = ""
    """`device:inode` of the data directory it was written for."""
    keeper: bool = False
    """Written by a keeper, which takes in jobs and runs none."""


class Greeting(msgspec.Struct, frozen=True):
    """What a server says of itself in its hello."""

    store: str
    epoch: int
    pid: int
    payload_bytes_max: int = 0
    """Bound on one payload; 0 where it was not told."""
    keeper: bool = False
    """The server is a keeper, which takes in jobs and runs none."""


def write(data: str, info: ServerInfo) -> None:
    """Writes `server.json` (0600), whole or not at all.  It is a hint, so nothing is synced.

    Raises:
        DiskFull: There is no room for it; nobody would find the server.
    """
    info = msgspec.structs.replace(info, directory=directory_mark(data))
    path, text = Path(data, FILE_NAME), msgspec.json.encode(info) + b"\n"
    fresh = path.with_suffix(".json.new")
    try:
        _write(fresh, text)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        # On a full disk, reuse the block of a dead server's file.
        path.unlink(missing_ok=True)
        with _told_if_full(data):
            _write(fresh, text)
    fresh.rename(path)


def check_room(data: str) -> None:
    """Checks that a server could write `server.json` in a data directory.

    Raises:
        DiskFull: There is no room for a small file.
    """
    probe = Path(data, f"{FILE_NAME}.{os.getpid()}")
    with _told_if_full(data):
        _write(probe, bytes(FILE_BYTES_MAX))
    probe.unlink()


@contextlib.contextmanager
def _told_if_full(data: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskFull(
            f"{data}: the disk is full, there is no room for {FILE_NAME}, by which clients find a "
            "server; free some room and start it again"
        ) from None


def _write(path: Path, text: bytes) -> None:
    """Writes a new file, or leaves none."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            while text:
                text = text[file.write(text) :]
    except OSError:
        path.unlink()
        raise


def remove(data: str) -> None:
    """Removes `server.json` and the socket beside it: the clean end of a server."""
    info = read(data)
    paths = [Path(data, FILE_NAME)]
    if info is not None and info.socket:
        paths.append(Path(info.socket))
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
    if info is not None and info.socket and Path(info.socket).parent != Path(data).absolute():
        with contextlib.suppress(OSError):
            Path(info.socket).parent.rmdir()


def withdraw(data: str) -> None:
    """Removes what this process has written, unless another one has written it since."""
    info = read(data)
    if info is not None and info.pid == os.getpid():
        remove(data)
    if read_phase(data)[0] == str(os.getpid()):
        tell_phase(data, "")


def tell_phase(data: str, phase: str) -> None:
    """Writes that this process is `starting` or `ending`, or removes that where it is neither.

    It has a file of its own, since `server.json` means that somebody listens.  It is a hint as
    well: where it cannot be written, clients wait no longer than usual.
    """
    path = Path(data, PHASE_NAME)
    with contextlib.suppress(OSError):
        if phase:
            fresh = path.with_suffix(".json.new")
            _write(fresh, f"{os.getpid()} {phase}\n".encode())
            fresh.rename(path)
        else:
            path.unlink()


def read_phase(data: str) -> tuple[str, str]:
    """Returns pid and phase as they were last written; empty where they never were."""
    try:
        text = read_regular(os.path.join(data, PHASE_NAME), PHASE_BYTES_MAX)  # noqa: PTH118
    except OSError:
        return "", ""
    pid, _, phase = text.decode("ascii", "replace").strip().partition(" ")
    return pid, phase if phase in PHASES else ""


def read(data: str) -> ServerInfo | None:
    """Returns what `server.json` says, or `None` where it is absent or unreadable."""
    try:
        text = read_regular(os.path.join(data, FILE_NAME), FILE_BYTES_MAX, trusted=True)  # noqa: PTH118
        return msgspec.json.decode(text, type=ServerInfo)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def directory_mark(data: str) -> str:
    """Returns what tells a data directory from its copies: `device:inode`."""
    found = os.stat(data)  # noqa: PTH116 - Path.stat says no more
    return f"{found.st_dev}:{found.st_ino}"


def require_directory(data: str) -> None:
    """Checks that `data` names a data directory that can be looked into.

    Raises:
        NotFound: There is nothing at this path.
        StoreUnavailable: It is no directory, or may not be entered.
    """
    try:
        found = os.stat(data)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"no data directory at {data}\n`beaver run --data {data}` or an enqueue creates it."
        ) from error
    except OSError as error:
        raise StoreUnavailable(f"the data directory {data}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise StoreUnavailable(f"{data} is a file, not a data directory")
    if not os.access(data, os.R_OK | os.X_OK):
        raise StoreUnavailable(f"no permission to read the data directory {data}")


# -- the place of the socket -----------------------------------------------------------------


def socket_path(data: str) -> str:
    """Returns the path at which a server of `data` binds its socket.

    In the data directory, unless that path is longer than the kernel takes; then in a
    directory of our own (0700) under `$XDG_RUNTIME_DIR` or the temporary directory.  An old
    socket at that path is removed: the caller holds the store's lock, so nobody listens.
    """
    path = Path(data).absolute() / SOCKET_NAME
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        path = _runtime_directory(data) / SOCKET_NAME
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return str(path)


def _runtime_directory(data: str) -> Path:
    """Makes the short directory for a long data path; the same one after a crash."""
    digest = blake2b(directory_mark(data).encode(), digest_size=8).hexdigest()
    name = f"beaver-{os.getuid()}-{digest}"
    import tempfile

    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if not parent:
            continue
        path = Path(parent, name)
        if len(os.fsencode(path / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
            continue
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.lstat()
        except OSError:
            continue
        # Anyone may make names in a shared temporary directory: only our own will do.
        ours = found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700
        if stat.S_ISDIR(found.st_mode) and ours:
            return path
    try:
        return Path(tempfile.mkdtemp(prefix="beaver-", dir="/tmp"))
    except OSError as error:
        raise StoreUnavailable(
            f"no place for the socket of {data}: its own path is longer than the "
            f"{SOCKET_PATH_BYTES_MAX} bytes that a socket may have, and nothing can be made in "
            f"$XDG_RUNTIME_DIR or the temporary directory: {error.strerror}"
        ) from error


def candidates(data: str, info: ServerInfo) -> list[str]:
    """Returns where the socket of `info` may be: as named, and beside it if that moved."""
    found = [info.socket]
    beside = str(Path(data).absolute() / SOCKET_NAME)
    if Path(info.socket).name == SOCKET_NAME and beside != info.socket:
        found.append(beside)
    return [path for path in found if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX + 3]


# -- proving it ----------------------------------------------------------------------------


class SelfClosingSocket(socket.socket):
    """A socket that closes without a warning when nobody holds it any more.

    Applications live as long as their process and are closed by nobody; and a forked child
    gives up its copy without ending its parent's connection.
    """

    def __del__(self) -> None:
        self.close()


def hello_frame() -> bytes:
    """Returns the first frame of every connection: request 0."""
    return framing.encode_frame([0, "hello", [framing.VERSION]])


def read_greeting(message: object) -> Greeting:
    """Returns what the answer to hello says.

    Raises:
        BeaverError: It is an error, or no greeting.
    """
    match message:
        case [0, 0, [int(version), str(store), int(epoch), int(pid), *more]]:
            if version != framing.VERSION:
                raise StoreUnavailable(
                    f"the server speaks protocol version {version}, this client "
                    f"{framing.VERSION}: use the same release of Beaver for both"
                )
            told = more[1] if len(more) > 1 and isinstance(more[1], int) else 0
            return Greeting(store, epoch, pid, told, more[:1] == ["keeper"])
        case [0, 1, [str(name), str(text)]]:
            raise framing.error_named(name, text)
        case _:
            raise StoreUnavailable("what answered on the socket is no Beaver server")


def dial(path: str) -> tuple[socket.socket, Greeting]:
    """Connects to a socket and exchanges hello, within `CONNECT_S`.

    Raises:
        OSError: Nobody listens there.
        BeaverError: Who listens is not a server that this client can talk to.
    """
    connection = SelfClosingSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_S)
        connection.connect(path)
        _refuse_stranger(connection, path)
        # A server that takes no more clients says so and hangs up, maybe before this.
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(hello_frame())
        greeting = _receive_greeting(connection)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection, greeting


def _refuse_stranger(connection: socket.socket, path: str) -> None:
    """Checks that who listens is our user or root: jobs are for nobody else.

    Root may ask everybody's server: it has named the directory.
    """
    uid = peer_of(connection)
    if uid is not None and not is_trusted(uid) and os.geteuid() != ROOT:
        raise StoreUnavailable(
            f"what listens at {path} runs as user {user_name(uid)}, and this process as "
            f"{user_name(os.geteuid())}\nBeaver's server serves its own user only."
        )


def client_uid(transport: asyncio.BaseTransport) -> int | None:
    """Returns the user of a client; `None` where the system does not tell."""
    listening = transport.get_extra_info("socket")
    if listening is None:
        return None
    # The descriptor stays the transport's; uvloop's sockets answer no `getsockopt`.
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, listening.fileno())
    try:
        return peer_of(connection)
    finally:
        connection.detach()


def _receive_greeting(connection: socket.socket) -> Greeting:
    reader = framing.FrameReader()
    while received := connection.recv(1 << 16):
        for body in reader.feed(received):
            return read_greeting(framing.decode_message(body))
    raise ServerGone("the server closed the connection before it said hello")


def reach(data: str) -> tuple[socket.socket, Greeting, ServerInfo] | None:
    """Connects to the server that holds `data`; `None` where none does.

    Raises:
        BeaverError: A server holds it, but this client cannot talk to it.
    """
    info = read(data)
    if info is None or (info.directory and info.directory != directory_mark(data)):
        return None
    for path in candidates(data, info):
        try:
            connection, greeting = dial(path)
        except (OSError, ServerGone):
            continue
        if greeting.store == info.store:
            return connection, greeting, info
        connection.close()
    return None


def reach_socket(path: str) -> tuple[socket.socket, Greeting] | None:
    """Connects to a server by the path of its socket; `None` where nobody listens."""
    try:
        return dial(path)
    except (OSError, ServerGone):
        return None
