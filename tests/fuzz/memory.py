"""Files in memory for readers: `ports.File` and the part of `ports.Disk` that opens one."""

from __future__ import annotations


class MemoryFile:
    """A file that is only read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, size: int, offset: int) -> bytes:
        return self._data[offset : offset + size]

    def size(self) -> int:
        return len(self._data)

    def close(self) -> None:
        pass


class OneFile:
    """A disk that holds one file, whatever its name."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, path: str, *, write: bool = False, create: bool = False) -> MemoryFile:
        assert not write
        assert not create
        return MemoryFile(self._data)
