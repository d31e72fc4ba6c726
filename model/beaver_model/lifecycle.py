"""The life of a job: one `transitions` Machine, and the table compiled from it.

`MACHINE` is the one source of truth.  Asking it costs microseconds, so the hot paths use
`CELLS`, compiled from it at import: `CELLS[trigger][state]` is the next state or `None`.
A test proves that both agree on every cell, reachable or not.  Diagrams and the reference
table in `docs/` are generated from the Machine as well.

What may not live here: guards.  Whether an attempt is left or a token fits is decided in
`decide` and checked in `legal`; this table says only which change may ever happen.
"""

from __future__ import annotations

from typing import Final

from transitions import Machine

from beaver_model.states import JobState, Trigger


class Life:
    """The object that the Machine moves.  It has no other content."""

    state: str


_TRANSITIONS: Final = [
    # trigger, sources, destination
    (Trigger.ENQUEUE, [JobState.NEW], JobState.PENDING),
    (Trigger.DISPATCH, [JobState.PENDING], JobState.IN_FLIGHT),
    (Trigger.ACK, [JobState.IN_FLIGHT], JobState.COMPLETED),
    (Trigger.RETRY, [JobState.IN_FLIGHT], JobState.PENDING),
    (Trigger.TIMEOUT, [JobState.IN_FLIGHT], JobState.PENDING),
    (Trigger.RELEASE, [JobState.IN_FLIGHT], JobState.PENDING),
    (Trigger.DEAD, [JobState.IN_FLIGHT, JobState.PENDING], JobState.DEAD),
    (Trigger.CANCEL_REQUESTED, [JobState.IN_FLIGHT], JobState.IN_FLIGHT),
    (Trigger.CANCEL, [JobState.PENDING, JobState.IN_FLIGHT], JobState.CANCELLED),
    (Trigger.REQUEUE, [JobState.DEAD, JobState.CANCELLED], JobState.PENDING),
    (Trigger.DISCARD, [JobState.PENDING, JobState.DEAD, JobState.CANCELLED], JobState.FORGOTTEN),
]


def build_machine() -> Machine:
    """Returns a Machine over the states of a job, attached to no object yet."""
    return Machine(
        model=None,
        states=[state.name for state in JobState],
        transitions=[
            {
                "trigger": trigger.name.lower(),
                "source": [s.name for s in sources],
                "dest": dest.name,
            }
            for trigger, sources, dest in _TRANSITIONS
        ],
        initial=JobState.NEW.name,
        auto_transitions=False,
    )


MACHINE: Final = build_machine()


Cells = tuple[JobState | None, ...]
"""The next state for each state, by one trigger."""


def _compile(machine: Machine) -> tuple[Cells, ...]:
    """Reads every cell of the Machine once."""
    table: list[list[JobState | None]] = [[None] * len(JobState) for _ in Trigger]
    for trigger in Trigger:
        for transition in machine.get_transitions(trigger.name.lower()):
            source, destination = str(transition.source), str(transition.dest)
            table[trigger][JobState[source]] = JobState[destination]
    return tuple(tuple(row) for row in table)


CELLS: Final = _compile(MACHINE)
"""`CELLS[trigger][state]`: the next state, or `None` where the event is illegal."""


def _leads_to(cells: Cells) -> JobState | None:
    targets = {to for source, to in enumerate(cells) if to is not None and to != source}
    assert len(targets) <= 1, "a trigger leads to one state"
    return targets.pop() if targets else None


LEADS_TO: Final = tuple(map(_leads_to, CELLS))
"""`LEADS_TO[trigger]`: the state that it leads to, or `None` where the job stays where it is."""
