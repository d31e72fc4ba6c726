"""The actions: every kind of thing that can happen in a world, and which of them are fair."""

from __future__ import annotations

from typing import Any, Final

Action = tuple[Any, ...]
"""An action: its name, then places of jobs and workers."""

FAIR: Final = frozenset(
    {
        "sync",
        "boot",
        "wake",
        "dispatch",
        "start",
        "give-back",
        "hear",
        "recall-cancelled",
        "stop",
        "kill",
        "stopped",
        "resume",
        "lease",
    }
)
"""Actions that happen in the end where they stay possible; so does an attempt that ends well."""


KINDS: Final[tuple[str, ...]] = (
    "enqueue same",
    "enqueue other",
    "enqueue later",
    "enqueue second",
    "dispatch",
    "dispatch-several",
    "sync",
    "crash",
    "crash forgets",
    "cut",
    "boot",
    "wake",
    "start",
    *(
        f"finish {how}"
        for how in (
            "ok",
            "fail",
            "fatal",
            "timeout",
            "softly",
            "died",
            "snooze",
            "child",
            "drained",
            "unheard",
        )
    ),
    "end ok",
    "end fail",
    "hear",
    "overtaken",
    "die",
    "recall",
    "recall-cancelled",
    "give-back",
    "stop",
    "kill",
    "lease",
    "late ok",
    "late fail",
    "cancel",
    "requeue",
    "discard",
    "pause",
    "resume",
    "drain",
    "stopped",
    "reload",
)
"""Every kind of action: the witnesses that each is really tried."""


def kind_of(action: Action) -> str:
    """Returns the kind of an action, one of `KINDS`."""
    if action[0] in {"finish", "end", "late", "enqueue"}:
        return f"{action[0]} {action[2]}"
    if action[0] == "crash" and len(action) > 2:
        return "crash forgets"
    return str(action[0])


def is_fair(action: Action) -> bool:
    """True for an action that fairness promises."""
    if action[0] == "finish":
        return action[2] in {"ok", "drained"}
    if action[0] == "end":
        return bool(action[2] == "ok")
    return action[0] in FAIR
