"""Traces for the tests: lives of jobs through the real model, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from beaver_model import Rejection
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    ConfirmCancel,
    Discard,
    Expire,
    Fail,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import AnyEvent, Cause
from beaver_spec.traces.following import steps_of
from beaver_spec.traces.rules import LogStep
from tests.worlds.model import World, job


class TracedWorld(World):
    """The real model, whose commits become steps of a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[LogStep] = []

    def do(self, command: AnyCommand) -> list[AnyEvent]:
        first_seq = self.state.last_seq + 1
        events = super().do(command)
        self.steps += steps_of(first_seq, self.now_ms, events)
        return events

    def try_to(self, command: AnyCommand) -> None:
        """Does it, or lets it be refused."""
        first_seq = self.state.last_seq + 1
        events = self.ask(command)
        if not isinstance(events, Rejection):
            self.steps += steps_of(first_seq, self.now_ms, events)

    def token(self, name: str) -> int:
        return self.state.jobs[name].token


def long_trace() -> list[LogStep]:
    """Every event there is, in lives as the real model decides them."""
    world = TracedWorld()
    world.do(Boot())
    world.do(SetBounds(1_000, 86_400_000))
    world.enqueue(*(job(name, max_attempts=2) for name in "abcdefg"))
    world.dispatch("a")
    world.do(Complete("a", world.token("a"), b"1", (job("child"),)))
    world.dispatch("b")
    world.do(Fail("b", world.token("b"), "boom"))
    world.now_ms += 10_000
    world.dispatch("b")
    world.do(Fail("b", world.token("b"), "boom"))
    world.do(Requeue("b"))
    world.dispatch("c")
    world.do(Expire("c", world.token("c"), Cause.TIME_LIMIT))
    world.dispatch("d")
    world.do(Release("d", world.token("d"), Cause.SNOOZE, 5_000))
    world.dispatch("e")
    world.do(Cancel("e"))
    world.do(ConfirmCancel("e", world.token("e")))
    world.do(Cancel("f"))
    world.do(Discard("f"))
    world.do(SetQueue("default", paused=True))
    world.now_ms += 10_000
    world.do(SetQueue("default", paused=False))
    world.dispatch("c")
    world.dispatch("d")
    world.dispatch("g")
    world.do(Boot(frozenset({world.token("d")})))
    world.dispatch("g")
    world.do(Boot(power_cut=True))
    world.dispatch("g")
    world.state.queues_max = 1
    world.enqueue(job("x", queue="mail"))
    world.do(Cancel("x"))
    world.do(Discard("x"))
    world.enqueue(job("y", queue="post"))
    world.do(Complete("g", world.token("g"), b"null"))
    return world.steps


def at(steps: list[LogStep], name: str, nth: int = 0) -> int:
    """Returns the index of the nth event of a name."""
    return [index for index, step in enumerate(steps) if step.name == name][nth]


def renumbered(steps: list[LogStep]) -> list[LogStep]:
    """Returns steps with seqs that follow each other, each in a commit of its own frame.

    Tokens stay what they were: only the places are mended.
    """
    commits: dict[int, int] = {}
    mended = []
    for seq, step in enumerate(steps, 1):
        commit = commits.setdefault(step.commit, seq)
        mended.append(replace(step, seq=seq, commit=commit))
    return mended


def changed(steps: list[LogStep], index: int, **fields: Any) -> list[LogStep]:
    """Returns steps of which one has other fields."""
    spoilt = list(steps)
    spoilt[index] = replace(steps[index], fields={**steps[index].fields, **fields})
    return spoilt


@dataclass(frozen=True)
class Spoilt:
    """A trace that was spoilt, the index of the wrong event, and a word of the reason."""

    steps: list[LogStep]
    index: int
    says: str


def dropped(steps: list[LogStep]) -> Spoilt:
    """An event is gone, and with it its seq."""
    index = at(steps, "DISPATCH")
    return Spoilt([*steps[:index], *steps[index + 1 :]], index, "follows seq")


def dropped_and_mended(steps: list[LogStep]) -> Spoilt:
    """A DISPATCH is gone, and the seqs were mended: its ACK answers nothing."""
    index = at(steps, "DISPATCH")
    return Spoilt(renumbered([*steps[:index], *steps[index + 1 :]]), index, "is pending")


def swapped(steps: list[LogStep]) -> Spoilt:
    """DISPATCH and ACK of a job have changed places."""
    index = at(steps, "DISPATCH")
    spoilt = list(steps)
    spoilt[index], spoilt[index + 1] = spoilt[index + 1], spoilt[index]
    return Spoilt(renumbered(spoilt), index, "is pending")


def forged_token(steps: list[LogStep]) -> Spoilt:
    """An outcome answers an attempt that is not the one in flight."""
    index = at(steps, "RETRY")
    token = steps[index].fields["token"]
    return Spoilt(changed(steps, index, token=token - 1), index, "with token")


def stale_token(steps: list[LogStep]) -> Spoilt:
    """A worker answers with the token of its attempt before the last."""
    index = at(steps, "DEAD")
    token = steps[at(steps, "RETRY")].fields["token"]
    return Spoilt(changed(steps, index, token=token), index, "with token")


def second_ack(steps: list[LogStep]) -> Spoilt:
    """A completion is logged twice."""
    index = len(steps)
    again = replace(steps[-1], seq=steps[-1].seq + 1, commit=steps[-1].seq + 1)
    return Spoilt([*steps, again], index, "does not exist")


def attempt_over_the_limit(steps: list[LogStep]) -> Spoilt:
    """A job that has no attempt left is tried again."""
    index = at(steps, "DEAD")
    fields = {**steps[index].fields, "run_at_ms": steps[index].time_ms}
    spoilt = list(steps)
    spoilt[index] = replace(steps[index], name="RETRY", fields=fields)
    return Spoilt(spoilt, index, "all its 2 attempts")


def too_early(steps: list[LogStep]) -> Spoilt:
    """A retry waits for longer than the DISPATCH that follows."""
    retry = at(steps, "RETRY")
    index = next(
        n
        for n, step in enumerate(steps)
        if n > retry and step.name == "DISPATCH" and step.fields["job"] == "b"
    )
    late = steps[index].time_ms + 1
    return Spoilt(changed(steps, retry, run_at_ms=late), index, "before its time")


def time_goes_back(steps: list[LogStep]) -> Spoilt:
    """A stamp lies before the one before."""
    index = len(steps) - 1
    spoilt = [*steps[:-1], replace(steps[-1], time_ms=steps[-2].time_ms - 1)]
    return Spoilt(spoilt, index, "goes back")


def uncancelled(steps: list[LogStep]) -> Spoilt:
    """A job that was to be cancelled dies instead."""
    index = at(steps, "CANCEL")
    spoilt = list(steps)
    spoilt[index] = replace(steps[index], name="DEAD")
    return Spoilt(spoilt, index, "was to be cancelled")


def enqueued_twice(steps: list[LogStep]) -> Spoilt:
    """An id comes in again while its job waits."""
    first = at(steps, "ENQUEUE", 1)
    again = steps[first]
    index = first + 1
    return Spoilt(renumbered([*steps[:index], again, *steps[index:]]), index, "exists")


def resurrected(steps: list[LogStep]) -> Spoilt:
    """An id comes in again while its tombstone must be remembered."""
    seq = steps[-1].seq + 1
    again = replace(steps[at(steps, "ENQUEUE")], seq=seq, commit=seq, time_ms=steps[-1].time_ms)
    return Spoilt([*steps, again], len(steps), "is not forgotten")


def orphan(steps: list[LogStep]) -> Spoilt:
    """A child comes in without its parent's completion."""
    index = at(steps, "ENQUEUE", 7)
    assert steps[index].fields["parent"] == "a"
    return Spoilt(changed(steps, index, parent="b"), index, "which has not completed")


def forgotten_at_boot(steps: list[LogStep]) -> Spoilt:
    """A BOOT leaves a job in flight."""
    boot = at(steps, "BOOT", 1)
    index = boot + 1
    return Spoilt(renumbered([*steps[:index], *steps[index + 1 :]]), boot + 3, "in flight")


def second_epoch(steps: list[LogStep]) -> Spoilt:
    """Two servers boot with one epoch."""
    index = at(steps, "BOOT", 1)
    return Spoilt(changed(steps, index, epoch=1), index, "epoch 1 follows epoch 1")


def unsuspected(steps: list[LogStep]) -> Spoilt:
    """After a power cut, a job is not a suspect."""
    index = at(steps, "TIMEOUT", -1)
    assert steps[index].fields["suspect"]
    return Spoilt(changed(steps, index, suspect=False), index, "suspect")


def from_a_paused_queue(steps: list[LogStep]) -> Spoilt:
    """A queue is resumed only after a job has started from it."""
    resume = at(steps, "QUEUE", 1)
    spoilt = list(steps)
    spoilt[resume], spoilt[resume + 1] = spoilt[resume + 1], spoilt[resume]
    return Spoilt(renumbered(spoilt), resume, "paused queue")


def forgotten_with_a_job(steps: list[LogStep]) -> Spoilt:
    """A queue is forgotten that has a job, since its DISCARD is gone."""
    index = at(steps, "DISCARD", -1)
    spoilt = renumbered([*steps[:index], *steps[index + 1 :]])
    return Spoilt(spoilt, index, "has 1 jobs")


WAYS: dict[str, Callable[[list[LogStep]], Spoilt]] = {
    way.__name__: way
    for way in (
        dropped,
        dropped_and_mended,
        swapped,
        forged_token,
        stale_token,
        second_ack,
        attempt_over_the_limit,
        too_early,
        time_goes_back,
        uncancelled,
        enqueued_twice,
        resurrected,
        orphan,
        forgotten_at_boot,
        second_epoch,
        unsuspected,
        from_a_paused_queue,
        forgotten_with_a_job,
    )
}

NOT_IN_TLA = frozenset(
    {"forgotten_with_a_job", "from_a_paused_queue", "orphan", "resurrected", "second_epoch"}
)
"""What `Lifecycle.tla` does not say: it knows no queues, children, tombstones and epochs."""
