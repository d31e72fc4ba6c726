"""Importing an application: `module:name` to its tasks."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final

from beaver.errors import AppImportError, InvalidInput
from beaver.task.registry import Registry
from beaver.text.foreign import counted
from beaver.workers.failures import own_frames

_FRAMES_MAX: Final = 30
_NAMES_TRIED: Final = ("app", "beaver")


def load(app: str) -> Registry:
    """Imports an application and returns its tasks, their signatures read and found usable.

    Args:
        app: `module:name` of a `Beaver`, or `module` where it holds only one; empty for no
            tasks.  The working directory is looked in first.

    Raises:
        AppImportError: With the traceback from the application's own code on.
    """
    registry = _find(app) if app else Registry()
    for task in registry:
        try:
            _ = task.parameters
        except InvalidInput as error:
            raise AppImportError(f"cannot serve {app!r}: {error}") from None
    return registry


def _find(app: str) -> Registry:
    module_name, _, attribute = app.partition(":")
    if "" not in sys.path and (directory := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # noqa: BLE001 -- SystemExit at import is one of them
        raise AppImportError(_explain(app, module_name, error)) from None
    if attribute:
        value: Any = module
        for name in attribute.split("."):
            if not hasattr(value, name):
                raise AppImportError(
                    f"cannot import {app!r}: {module_name} ({module.__file__}) has no {name!r}; "
                    f"it holds {_known(module)}"
                )
            value = getattr(value, name)
        registry = registry_of(value)
        if registry is None:
            raise AppImportError(
                f"cannot import {app!r}: {attribute} is a {type(value).__name__}, not a Beaver"
            )
        return registry
    found = _registries(module)
    for name in _NAMES_TRIED:
        if name in found:
            return found[name]
    if len({id(registry) for registry in found.values()}) != 1:
        raise AppImportError(
            f"cannot import {app!r}: {module_name} ({module.__file__}) holds {_known(module)}; "
            f"name one: {module_name}:NAME"
        )
    return next(iter(found.values()))


def registry_of(value: Any) -> Registry | None:
    """Returns the tasks of an application object (its `registry`), or of a bare `Registry`."""
    if isinstance(value, Registry):
        return value
    registry = getattr(value, "registry", None)
    return registry if isinstance(registry, Registry) else None


def _registries(module: Any) -> dict[str, Registry]:
    found = {}
    for name, value in vars(module).items():
        registry = registry_of(value)
        if registry is not None:
            found[name] = registry
    return found


def _known(module: Any) -> str:
    names = sorted(_registries(module))
    return f"the applications {', '.join(names)}" if names else "no Beaver at all"


def _explain(app: str, module_name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in _parents(module_name):
        return (
            f"cannot import {app!r}: no module named {error.name!r} in {Path.cwd()} "
            "or among the installed packages"
        )
    frames = own_frames(error.__traceback__)
    while frames is not None and "importlib" in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames, limit=_FRAMES_MAX)
    return f"cannot import {app!r}:\n{''.join(lines).rstrip()}"


def _parents(module_name: str) -> list[str]:
    parts = module_name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def why_not_fork(sockets_before: set[str]) -> str:
    """Returns why this process must not be forked any more; empty where it may be.

    Args:
        sockets_before: `open_sockets()` before the application was imported.
    """
    if sys.platform == "darwin":
        return "the system's libraries do not survive a fork on macOS"
    threads = _thread_count()
    if threads > 1:
        return f"its import started {counted(threads - 1, 'thread')}"
    if opened := open_sockets() - sockets_before:
        return f"its import left {counted(len(opened), 'socket')} open"
    return ""


def open_sockets() -> set[str]:
    """Returns the sockets of this process, as the kernel names them."""
    found = set()
    try:
        for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- only names are wanted
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 -- not a real path
            except OSError:
                continue
            if target.startswith("socket:"):
                found.add(target)
    except OSError:
        pass
    return found


def _thread_count() -> int:
    """Returns the number of threads, those of C libraries included where the kernel says."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 -- only their number is wanted
    except OSError:
        return threading.active_count()
