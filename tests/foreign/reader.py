"""A reader of logs made from `docs/reference/wal.md` alone: frames, events, and what they come to.

It does not judge: what must not stand in a log is the business of `illegal`.
"""

from __future__ import annotations

from typing import Any, Final

from tests.foreign.wire import frames_of, unpack

EVENTS: Final[dict[int, tuple[str, dict[str, Any]]]] = {
    1: (
        "ENQUEUE",
        {"job": ..., "spec": ..., "payload": ..., "digest": ..., "run_at_ms": 0, "parent": "",
         "tags": []},
    ),
    2: ("DISPATCH", {"job": ..., "worker": ...}),
    3: ("ACK", {"job": ..., "token": ..., "result": ...}),
    4: ("RETRY", {"job": ..., "token": ..., "run_at_ms": ..., "cause": ..., "error": ""}),
    5: (
        "TIMEOUT",
        {"job": ..., "token": ..., "run_at_ms": ..., "cause": ..., "suspect": False, "error": ""},
    ),
    6: ("RELEASE", {"job": ..., "token": ..., "run_at_ms": ..., "cause": ...}),
    7: ("DEAD", {"job": ..., "token": ..., "cause": ..., "error": ""}),
    8: ("CANCEL_REQUESTED", {"job": ..., "by": ""}),
    9: ("CANCEL", {"job": ..., "token": ..., "cause": "", "error": "", "by": ""}),
    10: ("REQUEUE", {"job": ..., "payload": None, "by": ""}),
    11: ("DISCARD", {"job": ..., "by": ""}),
    12: (
        "QUEUE",
        {"queue": ..., "paused": ..., "weight": ..., "bytes_max": ..., "durable_dispatch": True,
         "by": ""},
    ),
    13: ("BOOT", {"epoch": ..., "power_cut": ..., "writer": ""}),
    14: ("BOUNDS", {"tombstones_max": ..., "tombstones_age_ms": ...}),
    15: ("FORGET_QUEUE", {"queue": ...}),
}  # fmt: skip


def event_of(raw: list[Any]) -> tuple[str, dict[str, Any]]:
    """Returns name and fields of an event; what a later version adds is left out."""
    name, shape = EVENTS[raw[0]]
    fields = {**shape, **dict(zip(shape, raw[1:], strict=False))}
    if ... in fields.values():
        raise ValueError(f"{name} lacks a field")
    return name, fields


class Store:
    """What a log comes to."""

    def __init__(self) -> None:
        self.last_seq = self.time_ms = self.epoch = 0
        self.jobs: dict[str, dict[str, Any]] = {}
        self.payloads: dict[str, bytes] = {}
        self.tombstones: dict[str, int] = {}
        self.queues: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self._bounds = (1_000_000, 0)

    def read(self, segment: bytes) -> None:
        """Follows every frame of a segment."""
        for frame in frames_of(segment)[2]:
            if not frame.count:
                continue
            self.time_ms, events = unpack(frame.payload)
            for self.last_seq, raw in enumerate(events, frame.first_seq):
                name, fields = event_of(raw)
                place = {"seq": self.last_seq, "time_ms": self.time_ms, "event": name}
                self.events.append({**place, **fields})
                self._follow(name, fields)

    def _follow(self, name: str, fields: dict[str, Any]) -> None:
        match name:
            case "BOOT":
                self.epoch = fields["epoch"]
            case "BOUNDS":
                self._bounds = fields["tombstones_max"], fields["tombstones_age_ms"]
            case "QUEUE":
                queue = self._queue(fields["queue"])
                queue.update((key, fields[key]) for key in fields if key not in ("queue", "by"))
            case "FORGET_QUEUE":
                del self.queues[fields["queue"]]
            case "ENQUEUE":
                self._enqueue(fields)
            case _:
                self._change(name, self.jobs[fields["job"]], fields)

    def _enqueue(self, fields: dict[str, Any]) -> None:
        spec = unpack(fields["spec"])
        queue = self._queue(spec[1] if len(spec) > 1 else "default")
        queue["enqueued"] += 1
        self.payloads[fields["job"]] = fields["payload"]
        self.jobs[fields["job"]] = {
            "seq": self.last_seq, "state": "pending", "attempt": 0, "token": 0, "worker": 0,
            "ready_ms": max(fields["run_at_ms"], self.time_ms), "generation": 0, "snoozes": 0,
            "cancel_requested": False, "suspect": False, "cause": "", "error": "",
            "queue": queue,
        }  # fmt: skip

    def _change(self, name: str, job: dict[str, Any], fields: dict[str, Any]) -> None:
        if name not in {"DISPATCH", "CANCEL_REQUESTED", "REQUEUE"}:
            job["token"] = job["worker"] = 0
        match name:
            case "DISPATCH":
                job["attempt"] += 1
                job.update(state="in_flight", token=self.last_seq, worker=fields["worker"])
            case "ACK":
                job["queue"]["completed"] += 1
                self._bury(fields["job"])
            case "DISCARD":
                self._bury(fields["job"])
            case "RETRY" | "TIMEOUT":
                job.update(state="pending", suspect=fields.get("suspect", False))
                job.update(cause=fields["cause"], error=fields["error"])
                job["ready_ms"] = max(fields["run_at_ms"], self.time_ms)
            case "RELEASE":
                job["attempt"] -= 1
                job["snoozes"] += fields["cause"] == "snooze"
                job.update(state="pending", ready_ms=max(job["ready_ms"], fields["run_at_ms"]))
            case "DEAD":
                job.update(state="dead", suspect=False, cancel_requested=False)
                job.update(cause=fields["cause"], error=fields["error"])
            case "CANCEL_REQUESTED":
                job["cancel_requested"] = True
            case "CANCEL":
                job.update(state="cancelled", suspect=False, cancel_requested=False)
                job.update(cause=fields["cause"], error=fields["error"] or job["error"])
            case "REQUEUE":
                job.update(state="pending", attempt=0, snoozes=0, cause="", error="")
                job["generation"] += 1
                job["ready_ms"] = self.time_ms
                if fields["payload"] is not None:
                    self.payloads[fields["job"]] = fields["payload"]

    def _bury(self, name: str) -> None:
        del self.jobs[name], self.payloads[name]
        self.tombstones[name] = self.time_ms
        most, age_ms = self._bounds
        for _ in range(4):
            oldest = next(iter(self.tombstones), None)
            if oldest is None:
                return
            is_old = age_ms and self.tombstones[oldest] < self.time_ms - age_ms
            if len(self.tombstones) > most or is_old:
                del self.tombstones[oldest]

    def _queue(self, name: str) -> dict[str, Any]:
        new = {"paused": False, "weight": 10, "bytes_max": 0, "durable_dispatch": True}
        return self.queues.setdefault(name, {**new, "enqueued": 0, "completed": 0})
