"""Names of a simulated disk: what processes see, and what a crash may leave of it.

A name (made, renamed, linked, removed) is on the platter once its directory was synced.  Until
then a crash keeps any subset of these changes; each of them whole.

What lives here: names and what they stand for.  Bytes are `platter`'s, descriptors and planned
faults `disk`'s.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from beaver_chaos.sim.platter import NUMBERS, Chooser, Inode


class Directory:
    """A directory; its names stand in the tables under whole paths."""

    def __init__(self) -> None:
        self.number = next(NUMBERS)


Node = Inode | Directory
Bindings = dict[str, Node | None]
"""What paths stand for from now on; `None` where a name goes."""


class _Change(NamedTuple):
    """One change of names, which happens whole or not at all."""

    bindings: Bindings
    directories: frozenset[str]


class Names:
    """Every name of a disk."""

    def __init__(self, directories: Iterable[str]) -> None:
        self._seen: dict[str, Node] = {path: Directory() for path in directories}
        self._platter = dict(self._seen)
        self._changes: list[_Change] = []

    def __contains__(self, path: str) -> bool:
        return path in self._seen

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        return iter(self._seen.items())

    # -- looking up ------------------------------------------------------------------------

    def get(self, path: str) -> Node | None:
        """Returns what a path stands for; `None` if nothing."""
        return self._seen.get(path)

    def node(self, path: str) -> Node:
        """Returns what a path stands for, or raises the error of a system call."""
        node = self._seen.get(path)
        if node is None:
            parent = path.rpartition("/")[0]
            is_below_file = isinstance(self._seen.get(parent), Inode)
            raise os_error(errno.ENOTDIR if is_below_file else errno.ENOENT, path)
        return node

    def inode(self, path: str) -> Inode:
        """Returns the file at a path, or raises the error of a system call."""
        node = self.node(path)
        if isinstance(node, Directory):
            raise os_error(errno.EISDIR, path)
        return node

    def require_directory(self, path: str) -> None:
        """Raises the error of a system call where a path is no directory; "" is one."""
        node = self._seen.get(path)
        if isinstance(node, Inode):
            raise os_error(errno.ENOTDIR, path)
        if node is None and path:
            raise os_error(errno.ENOENT, path)

    def has(self, inode: Inode) -> bool:
        """True where some name stands for the file."""
        return any(node is inode for node in self._seen.values())

    def listdir(self, path: str) -> list[str]:
        """Returns the names in a directory, sorted."""
        parts = (name.rpartition("/") for name in self._seen)
        return sorted(name for parent, _, name in parts if parent == path)

    def inodes(self) -> list[Inode]:
        """Returns every file that a name stands for, or may stand for behind a crash."""
        nodes = [*self._seen.values(), *self._platter.values()]
        nodes += [node for change in self._changes for node in change.bindings.values() if node]
        # By identity, in an order that does not depend on addresses.
        return list({id(node): node for node in nodes if isinstance(node, Inode)}.values())

    # -- changing --------------------------------------------------------------------------

    def change(self, bindings: Bindings) -> None:
        """Changes names, as processes see them."""
        directories = frozenset(path.rpartition("/")[0] for path in bindings)
        change = _Change(bindings, directories)
        _rebind(self._seen, change)
        self._changes.append(change)

    def put(self, path: str, node: Node) -> None:
        """Names something, durably, as if it had always been so."""
        self._seen[path] = self._platter[path] = node

    def sync(self, directory: str) -> None:
        """Brings the names of a directory to the platter; unknown ones hold none of ours."""
        for change in self._changes:
            if directory in change.directories:
                _rebind(self._platter, change)
        self._changes = [c for c in self._changes if directory not in c.directories]

    def crash(self, choose: Chooser) -> None:
        """The power goes: of the changes that were not synced, chance decides what is left."""
        changes, self._changes = self._changes, []
        mode = choose(3) if changes else 0
        for change in changes:
            if mode == 1 or (mode == 2 and choose(2)):
                _rebind(self._platter, change)
        self._drop_orphans()
        self._seen = dict(self._platter)

    def _drop_orphans(self) -> None:
        """Files in a directory whose own name was lost are lost with it."""
        names = self._platter
        for path in sorted(names):
            parent = os.path.dirname(path)  # noqa: PTH120 - simulated paths
            if isinstance(self._seen.get(parent), Directory) and parent not in names:
                del names[path]


def _rebind(names: dict[str, Node], change: _Change) -> None:
    for path, node in change.bindings.items():
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node


def identity(node: Node) -> str:
    """Returns what tells a file or directory from all others, as `ports.Disk.identity`."""
    return f"{0:016x}:{node.number:016x}"


def os_error(number: int, path: str) -> OSError:
    """Returns the error of a system call."""
    return OSError(number, os.strerror(number), path)
