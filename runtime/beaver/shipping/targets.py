"""Places to ship to: a directory, or an object store that speaks S3.

Two operations carry the whole: `put_new` makes an object unless there is one, and `swap` replaces
one only if it is still what was read.  Everything else may be repeated at will.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from beaver.errors import InvalidInput, StoreUnavailable
from beaver.ports import File
from beaver.system.disk import SystemDisk, SystemFile
from beaver.system.regular import open_regular

SCHEMES: Final = ("s3", "s3a", "gs", "az", "memory")
_COPY_BYTES: Final = 8 << 20
_TEMPORARY: Final = ".tmp-"


class TargetFailed(StoreUnavailable):
    """The target cannot be reached, or refuses: it is tried again."""


class Read(NamedTuple):
    """An object, and what tells this content from any other."""

    data: bytes
    version: str


class Target(Protocol):
    """Objects by key.  Every method may raise `TargetFailed`."""

    name: str
    """For people, and without a secret."""

    def list(self) -> dict[str, int]:
        """Returns the size of every object by its key."""
        ...

    def read(self, key: str) -> Read | None:
        """Returns a small object; `None` where there is none."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Makes an object, durably; False where there is one of that key."""
        ...

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replaces an object that was read; False where it is another one by now."""
        ...

    def put_file(self, key: str, file: File) -> None:
        """Makes or replaces a large object."""
        ...

    def open(self, key: str, scratch: Path) -> File:
        """Returns an object as a file; `scratch` is a directory for what has to be fetched."""
        ...

    def delete(self, key: str) -> None:
        """Deletes an object; none is as well."""
        ...


def open_target(where: str) -> Target:
    """Returns the place that a target names.

    Args:
        where: A directory, or a URL such as `s3://bucket/prefix`.

    Raises:
        InvalidInput: It is neither, or the extra `ship` is not installed.
    """
    scheme = urlsplit(where).scheme if "://" in where else ""
    if scheme == "file":
        return DirectoryTarget(urlsplit(where).path)
    if not scheme:
        return DirectoryTarget(where)
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES[:-1])
        raise InvalidInput(f"{where}: a directory is expected, or a URL that begins with {known}")
    return ObjectTarget(where)


# -- a directory -----------------------------------------------------------------------------------


class DirectoryTarget:
    """Objects as files of a directory, on whatever is mounted there."""

    def __init__(self, path: str) -> None:
        self.name = os.path.abspath(path)  # noqa: PTH100 - a string, links unresolved
        self._root = Path(path)

    def list(self) -> dict[str, int]:
        """See `Target`."""
        with self._told("list"):
            found: dict[str, int] = {}
            for folder, _, names in os.walk(self._root):
                for name in names:
                    if _TEMPORARY not in name and not name.startswith("."):
                        path = Path(folder, name)
                        with contextlib.suppress(FileNotFoundError):
                            found[path.relative_to(self._root).as_posix()] = path.stat().st_size
            return found

    def read(self, key: str) -> Read | None:
        """See `Target`."""
        with self._told("read"):
            try:
                data = (self._root / key).read_bytes()
            except FileNotFoundError:
                return None
            return Read(data, hashlib.sha256(data).hexdigest())

    def put_new(self, key: str, data: bytes) -> bool:
        """See `Target`."""
        with self._told("write to"), self._written(key, data) as temporary:
            try:
                os.link(temporary, self._root / key)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                    raise
                # No hard links here: the lock keeps others of our kind away.
                with self._locked():
                    if (self._root / key).exists():
                        return False
                    temporary.rename(self._root / key)
            SystemDisk().sync_dir(str((self._root / key).parent))
            return True

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """See `Target`."""
        with self._told("write to"), self._locked():
            found = self.read(key)
            if found is None or found.version != version:
                return False
            with self._written(key, data) as temporary:
                temporary.rename(self._root / key)
                SystemDisk().sync_dir(str((self._root / key).parent))
            return True

    def put_file(self, key: str, file: File) -> None:
        """See `Target`."""
        with self._told("write to"), self._written(key, b"") as temporary:
            out = SystemFile(open_regular(str(temporary), os.O_RDWR))
            try:
                for offset in range(0, file.size(), _COPY_BYTES):
                    out.pwrite(file.pread(_COPY_BYTES, offset), offset)
                out.sync()
            finally:
                out.close()
            temporary.rename(self._root / key)
            SystemDisk().sync_dir(str((self._root / key).parent))

    def open(self, key: str, scratch: Path) -> File:
        """See `Target`."""
        with self._told("read"):
            return SystemDisk().open(str(self._root / key))

    def delete(self, key: str) -> None:
        """See `Target`."""
        with self._told("delete from"):
            (self._root / key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """Yields a synced file of a temporary name in the folder of a key."""
        folder = (self._root / key).parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        file = SystemFile(open_regular(str(temporary), os.O_RDWR | os.O_CREAT | os.O_EXCL))
        try:
            try:
                file.pwrite(data, 0)
                file.sync()
            finally:
                file.close()
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_regular(str(self._root / ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.name
            raise TargetFailed(f"cannot {doing} {self.name}: {where}: {error.strerror}") from error


# -- an object store -------------------------------------------------------------------------------


class ObjectTarget:
    """Objects of an S3-compatible store, through `obstore`.

    Region, keys and endpoint come from its usual environment (`AWS_ACCESS_KEY_ID`, ...).
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore import exceptions
            from obstore.store import from_url
        except ImportError as error:
            raise InvalidInput(
                f"{url}: object stores need the extra `ship`: pip install 'beaver-raft[ship]'"
            ) from error
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self._obstore: Any = obstore
        self._errors: Any = exceptions
        try:
            self._store: Any = from_url(url)
        except (exceptions.BaseError, ValueError) as error:
            raise InvalidInput(f"{self.name}: {_first_line(error)}") from error

    def list(self) -> dict[str, int]:
        """See `Target`."""
        with self._told("list"):
            return {
                found["path"]: found["size"]
                for chunk in self._obstore.list(self._store)
                for found in chunk
            }

    def read(self, key: str) -> Read | None:
        """See `Target`."""
        with self._told("read"):
            try:
                found = self._obstore.get(self._store, key)
                return Read(bytes(found.bytes()), found.meta["e_tag"] or "")
            except FileNotFoundError:
                return None

    def put_new(self, key: str, data: bytes) -> bool:
        """See `Target`."""
        with self._told("write to"):
            try:
                self._obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except self._errors.AlreadyExistsError:
                return False
            return True

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """See `Target`."""
        with self._told("write to"):
            try:
                self._obstore.put(
                    self._store, key, data, mode={"e_tag": version}, use_multipart=False
                )
            except (self._errors.PreconditionError, FileNotFoundError):
                return False
            return True

    def put_file(self, key: str, file: File) -> None:
        """See `Target`."""
        with self._told("write to"):
            pieces = (file.pread(_COPY_BYTES, at) for at in range(0, file.size(), _COPY_BYTES))
            self._obstore.put(self._store, key, pieces)

    def open(self, key: str, scratch: Path) -> File:
        """See `Target`."""
        with self._told("read"):
            path = scratch / secrets.token_hex(8)
            file = SystemFile(open_regular(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL))
            try:
                path.unlink()  # It goes with its descriptor.
                offset = 0
                for chunk in self._obstore.get(self._store, key).stream(min_chunk_size=1 << 20):
                    data = bytes(chunk)
                    file.pwrite(data, offset)
                    offset += len(data)
            except BaseException:
                file.close()
                raise
            return file

    def delete(self, key: str) -> None:
        """See `Target`."""
        with self._told("delete from"), contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, key)

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (self._errors.BaseError, OSError) as error:
            raise TargetFailed(f"cannot {doing} {self.name}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
