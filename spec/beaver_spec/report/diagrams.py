"""State diagrams, generated from the Machine."""

from __future__ import annotations

from collections.abc import Mapping

from beaver_model.lifecycle import MACHINE
from beaver_model.states import JobState, Trigger

_ENDS = {JobState.NEW.name: "[*]", JobState.FORGOTTEN.name: "[*]"}


def transitions() -> list[tuple[Trigger, JobState, JobState]]:
    """Returns every transition of the Machine."""
    return [
        (trigger, JobState[str(move.source)], JobState[str(move.dest)])
        for trigger in Trigger
        for move in MACHINE.get_transitions(trigger.name.lower())
    ]


def state_diagram(counts: Mapping[tuple[str, str, str], int] | None = None) -> str:
    """Returns the lifecycle as a Mermaid diagram, with how often each arrow was taken."""
    lines = ["stateDiagram-v2"]
    for trigger, source, target in transitions():
        start = _ENDS.get(source.name, source.name.lower())
        stop = _ENDS.get(target.name, target.name.lower())
        label = trigger.name
        if counts is not None:
            label += f" ({counts.get((trigger.name, source.name, target.name), 0)})"
        lines.append(f"    {start} --> {stop}: {label}")
    return "\n".join(lines)
