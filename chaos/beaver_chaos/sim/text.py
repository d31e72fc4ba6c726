"""A plan as one line of JSON, as the command that repeats a small failure holds it.

What is as in `PLAIN` or `PLAIN_JOB` is left out: those are the plainest values, and a
shrunk plan is mostly made of them.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from beaver_chaos.sim.faults import FAULTS
from beaver_chaos.sim.plan import CLIENTS, REQUESTS, Act, JobPlan, Plan, Script, Setup

T = TypeVar("T", Setup, JobPlan)

PLAIN: Final = Setup(
    workers=1,
    concurrency=0,
    prefetch=0,
    grace_ms=20,
    segment_bytes=16_384,
    in_order=True,
    latency_us=50,
    sync_us=50,
    commit="inline",
    keep_archive=True,
    tombstones_max=1_000_000,
    tombstones_age_ms=0,
    start_ms=5_000,
)
"""The plainest setup."""

PLAIN_JOB: Final = JobPlan(
    id="",
    queue="default",
    priority=5,
    scripts=(Script("ok", 1),),
    timeout_ms=400,
    max_attempts=1,
    backoff_ms=5,
    delay_ms=0,
)
"""The plainest job, but for its id."""


class _Text(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A plan as it is written."""

    seed: int
    acts: list[tuple[int, str, list[Any]]]
    setup: dict[str, Any] = {}


def text_of(plan: Plan) -> str:
    """Returns a plan as JSON, which `plan_of` reads."""
    acts = [(act.at_ms, act.kind, [_written(arg) for arg in act.args]) for act in plan.acts]
    text = _Text(plan.seed, acts, _differing(plan.setup, PLAIN))
    return msgspec.json.encode(text).decode()


def plan_of(text: str) -> Plan:
    """Returns the plan of a text.

    Raises:
        ValueError: It is not one of `text_of`'s.
    """
    try:
        read = msgspec.json.decode(text, type=_Text)
        setup = _filled(read.setup, PLAIN)
        return Plan(read.seed, setup, tuple(_act(*act) for act in read.acts))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def _act(at_ms: int, kind: str, args: list[Any]) -> Act:
    if kind in FAULTS:
        return Act(at_ms, kind, tuple(args))
    if kind not in ("enqueue", *REQUESTS):
        raise ValueError(f"no act {kind!r}")
    if not args or args[0] not in range(CLIENTS):
        raise ValueError(f"{kind}: the first argument is a client, 0 to {CLIENTS - 1}")
    if kind == "enqueue":
        client, jobs = msgspec.convert(args, tuple[int, list[dict[str, Any]]])
        return Act(at_ms, kind, (client, tuple(_filled(job, PLAIN_JOB) for job in jobs)))
    return Act(at_ms, kind, tuple(args))


def _written(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return [_differing(job, PLAIN_JOB) for job in arg]
    return arg


def _differing(value: Any, plain: Any) -> dict[str, Any]:
    return {
        name: part
        for name, part, usual in zip(value._fields, value, plain, strict=True)
        if part != usual
    }


def _filled(fields: dict[str, Any], plain: T) -> T:
    values: dict[str, Any] = plain._asdict()
    strangers = fields.keys() - values.keys()
    if strangers:
        raise ValueError(f"no such fields: {', '.join(sorted(strangers))}")
    return msgspec.convert([*(values | fields).values()], type(plain))
