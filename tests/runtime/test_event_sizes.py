"""What a command may lead to is known before it is decided, however many it is for."""

from __future__ import annotations

import pytest

from beaver.engine.event_sizes import events_bytes_max, events_max
from beaver.journal.codec import encode_commit
from beaver_model.bounds import BY_CHARS_MAX, ERROR_BYTES_MAX, ID_BYTES_MAX
from beaver_model.commands import (
    AnyCommand,
    Cancel,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Discard,
    DispatchBatch,
    Done,
    Enqueue,
    Fail,
    Requeue,
    SetQueue,
)
from beaver_model.events import Cause
from tests.worlds.model import World, job

COUNT = 5
RESULT = b'"%b"' % (b"x" * 1_000)


def names() -> list[str]:
    """Returns ids as long as they may be."""
    return [f"{number}" * ID_BYTES_MAX for number in range(COUNT)]


def commands() -> list[AnyCommand]:
    tokens = range(COUNT + 1, 2 * COUNT + 1)
    done = [Done(name, token, RESULT) for name, token in zip(names(), tokens, strict=True)]
    return [
        Enqueue([job(name) for name in names()]),
        DispatchBatch(names(), 1),
        CompleteBatch(done),
    ]


@pytest.mark.parametrize("character", ["x", "\0", "\N{BEAVER}"])
@pytest.mark.parametrize("kind", [Fail, ConfirmCancel])
def test_the_words_of_a_job_are_reckoned_with(kind: type, character: str) -> None:
    """The longest error or reason takes no more in the log than room was made for."""
    world = World()
    name = "i" * ID_BYTES_MAX
    world.enqueue(job(name))
    words = character * (ERROR_BYTES_MAX // len(character.encode()))
    extra = {"cause": Cause.JOB} if kind is ConfirmCancel else {}
    command = kind(name, world.dispatch(name), error=words, **extra)
    size = events_bytes_max(command, world.state)
    events = world.do(command)
    assert len(encode_commit(1 << 40, events)) - len(encode_commit(1 << 40, [])) <= size


@pytest.mark.parametrize("kind", [Cancel, Requeue, Discard, SetQueue])
def test_the_longest_name_of_who_asks_is_reckoned_with(kind: type) -> None:
    """As long as a name may be, of the widest characters."""
    world = World()
    name, by = "i" * ID_BYTES_MAX, "\N{BEAVER}" * BY_CHARS_MAX
    if kind is SetQueue:
        command: AnyCommand = SetQueue("q" * 200, paused=True, by=by)
    else:
        world.enqueue(job(name))
        if kind is Requeue:
            world.do(Cancel(name))
        command = kind(name, by=by)
    size = events_bytes_max(command, world.state)
    events = world.do(command)
    assert len(encode_commit(1 << 40, events)) - len(encode_commit(1 << 40, [])) <= size


@pytest.mark.parametrize("last", range(3))
def test_no_command_for_several_leads_to_more_than_is_reckoned_with(last: int) -> None:
    world = World()
    for command in commands()[:last]:
        world.do(command)
    command = commands()[last]
    size, count = events_bytes_max(command, world.state), events_max(command)
    events = world.do(command)
    assert len(events) == count == COUNT
    assert len(encode_commit(1 << 40, events)) - len(encode_commit(1 << 40, [])) <= size


def test_successes_together_are_reckoned_as_each_of_them() -> None:
    command = commands()[2]
    assert isinstance(command, CompleteBatch)
    singles = [Complete(done.job, done.token, done.result) for done in command.done]
    state = World().state
    each = [events_bytes_max(single, state) for single in singles]
    assert events_bytes_max(command, state) == sum(each)
