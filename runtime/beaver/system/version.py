"""The version of this installation."""

from __future__ import annotations

from functools import cache


@cache
def own_version() -> str:
    """Returns it; empty where nothing is installed.  Read once, by whoever asks first."""
    from importlib import metadata  # here, since it takes longer than most of a start

    try:
        return metadata.version("beaver-raft")
    except metadata.PackageNotFoundError:
        return ""
