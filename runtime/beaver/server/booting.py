"""What a new server says of the attempts of its predecessor.

What lives here: reading the slots of the last server against the state.  What may not:
what BOOT does to the jobs, which the model decides.
"""

from __future__ import annotations

from beaver.workers.slots import PreviousSlots
from beaver_model import State
from beaver_model.commands import Boot


def boot_command(
    state: State, previous: PreviousSlots | None, store: bytes, writer: str = ""
) -> Boot:
    """Returns the BOOT command: what had started, by the slots of the last server.

    Where these are of another start of the machine, of another store, or missing while jobs
    are in flight, nobody knows what had started: that counts as a power cut.
    """
    if previous is None or previous.store != store:
        return Boot(power_cut=bool(state.in_flight), writer=writer)
    started = previous.started
    return Boot(
        frozenset(t for t, row in state.in_flight.items() if t <= started.get(row.worker, 0)),
        power_cut=not previous.same_boot,
        writer=writer,
    )
