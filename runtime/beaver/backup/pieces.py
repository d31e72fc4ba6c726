"""Files that are put together from pieces of open files, as a disk that can only be read.

A copy of a store is read by the same code that reads a store: its files may be those of a living
one, up to where they were when they were opened; members of a tar file; or downloaded parts.
What is open stays readable, whatever becomes of its name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from beaver.ports import File


class Piece(NamedTuple):
    """Bytes of an open file."""

    file: File
    offset: int
    size: int


class _Joined:
    """`ports.File` over pieces, one behind the other."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    def pread(self, size: int, offset: int) -> bytes:
        found: list[bytes] = []
        at = 0
        for piece in self._pieces:
            begin = max(offset, at)
            end = min(offset + size, at + piece.size)
            if begin < end:
                data = piece.file.pread(end - begin, piece.offset + begin - at)
                found.append(data)
                if len(data) < end - begin:
                    break
            at += piece.size
            if at >= offset + size:
                break
        return found[0] if len(found) == 1 else b"".join(found)

    def size(self) -> int:
        return sum(piece.size for piece in self._pieces)

    def close(self) -> None:
        """The pieces stay open, for whoever opens the file next."""

    def identity(self) -> str:
        return f"{id(self):033x}"

    def is_kept(self, size: int) -> bool:
        return self.size() >= size

    def lock(self) -> bool:
        return False

    def pwrite(self, data: bytes, offset: int) -> NoReturn:
        raise _refusal("")

    pwrite_durable = pwrite

    def sync(self) -> NoReturn:
        raise _refusal("")

    def truncate(self, size: int) -> NoReturn:
        raise _refusal("")


def _refusal(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)


class Pieces:
    """`ports.Disk` that holds the files it was given, and nothing else."""

    def __init__(self, path: str) -> None:
        """Begins empty.

        Args:
            path: The directory that it stands for.
        """
        self.path = path
        self.files: dict[str, tuple[Piece, ...]] = {}
        """By path."""
        self._open: list[File] = []

    def keep(self, file: File) -> File:
        """Takes an open file, to close it with everything else; returns it."""
        self._open.append(file)
        return file

    def close(self) -> None:
        """Closes what the pieces are of."""
        for file in self._open:
            file.close()
        self._open.clear()

    def bytes(self) -> int:
        """Returns the size of all files together."""
        return sum(piece.size for pieces in self.files.values() for piece in pieces)

    # -- as a disk ---------------------------------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        if write or create:
            raise _refusal(path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return _Joined(self.files[path])

    def exists(self, path: str) -> bool:
        return path in self.files or path == self.path or bool(self._below(path))

    def listdir(self, path: str) -> list[str]:
        if path in self.files:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if not self.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return sorted({name.partition("/")[0] for name in self._below(path)})

    def _below(self, path: str) -> list[str]:
        prefix = f"{path}/"
        return [name.removeprefix(prefix) for name in self.files if name.startswith(prefix)]

    def identity(self, path: str) -> str:
        return self.open(path).identity()

    def same_file(self, one: str, other: str) -> bool:
        return one == other and one in self.files

    def free_bytes(self, path: str) -> int:
        return 0

    def file_bytes_max(self) -> int:
        return 0

    def mkdir(self, path: str) -> NoReturn:
        raise _refusal(path)

    def rename(self, old: str, new: str) -> NoReturn:
        raise _refusal(new)

    link = rename

    def unlink(self, path: str) -> NoReturn:
        raise _refusal(path)

    def sync_dir(self, path: str) -> NoReturn:
        raise _refusal(path)

    def lock(self, path: str) -> NoReturn:
        raise _refusal(path)
