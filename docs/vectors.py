"""Test vectors of the log, for a reader in another language: `reference/wal-vectors.json`.

Made by the code that writes logs, and read by one that knows only the documents
(`tests/foreign/reader.py`).
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from beaver.journal.codec import encode_commit
from beaver.journal.wal.format import (
    CLOSE,
    MARK,
    FileHeader,
    encode_file_header,
    encode_frame,
    first_seed,
    header_seed,
)
from beaver_model import Rejection, State, apply, decide, fingerprint
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    ConfirmCancel,
    Discard,
    Dispatch,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import ALL_EVENTS, AnyEvent, Cause, QueueForgotten
from beaver_model.rows import Spec, encode_spec

STORE: Final = bytes(range(16))
BEGIN_MS: Final = 1_700_000_000_000
Told = list[AnyCommand | list[AnyEvent]]


def _job(name: str, payload: bytes = b"null", run_at_ms: int = 0, **options: Any) -> NewJob:
    spec = encode_spec(Spec(**{"task": "echo", "backoff_jitter": 0.0, **options}))
    return NewJob(name, spec, payload, b"digest-of-12", run_at_ms, tuple(options.pop("tags", ())))


class _Writer:
    """A log that the model decides, a second between its commits."""

    def __init__(self) -> None:
        self.state, self.now_ms = State(), BEGIN_MS
        crc = first_seed(STORE, 1)
        self._crc, self._seed = crc, header_seed(STORE)
        self.data = encode_file_header(FileHeader(STORE, 1, crc))
        self.events: list[dict[str, Any]] = []

    def flag(self, flags: int) -> None:
        self._frame(b"", 0, flags)

    def commit(self, *told: AnyCommand | AnyEvent) -> None:
        """Adds a frame with what the commands lead to; events stand for themselves."""
        self.now_ms += 1_000
        events: list[AnyEvent] = []
        first_seq = self.state.last_seq + 1
        for one in told:
            decision = [one] if type(one) in ALL_EVENTS else decide(self.state, one, self.now_ms)
            assert not isinstance(decision, Rejection), decision
            for event in decision:
                apply(self.state, event, self.now_ms)
                events.append(event)
        self._frame(encode_commit(self.now_ms, events), len(events), 0, first_seq)
        for seq, event in enumerate(events, first_seq):
            shown = {"seq": seq, "time_ms": self.now_ms, "event": event.NAME}
            self.events.append({**shown, **_shown(event)})

    def token(self, job: str) -> int:
        return self.state.jobs[job].token

    def _frame(self, payload: bytes, count: int, flags: int, first_seq: int = 0) -> None:
        first_seq = first_seq or self.state.last_seq + 1
        frame, self._crc = encode_frame(
            payload, count, first_seq, flags, previous_crc=self._crc, seed=self._seed
        )
        self.data += frame

    def vector(self, name: str, says: str) -> dict[str, Any]:
        state = self.state
        return {
            "name": name,
            "says": says,
            "segment": self.data.hex(),
            "events": self.events,
            "state": {
                "last_seq": state.last_seq,
                "time_ms": state.time_ms,
                "epoch": state.epoch,
                "jobs": {row.id: _row(row) for row in state.jobs.values()},
                "tombstones": list(state.tombstone_ids),
                "queues": {
                    name: {
                        "paused": queue.row.paused,
                        "weight": queue.row.weight,
                        "bytes_max": queue.row.bytes_max,
                        "durable_dispatch": queue.row.durable_dispatch,
                        "enqueued": queue.row.enqueued,
                        "completed": queue.row.completed,
                    }
                    for name, queue in state.queues.items()
                },
                "fingerprint": fingerprint(state),
            },
        }


def _row(row: Any) -> dict[str, Any]:
    extra = row.extra
    return {
        "seq": row.seq,
        "state": row.state.name.lower(),
        "attempt": row.attempt,
        "token": row.token,
        "worker": row.worker,
        "ready_ms": row.ready_ms,
        "generation": extra.generation if extra else 0,
        "snoozes": extra.snoozes if extra else 0,
        "cancel_requested": bool(extra and extra.cancel_requested),
        "suspect": bool(extra and extra.suspect),
        "cause": extra.cause if extra else "",
        "error": extra.error if extra else "",
    }


def _shown(event: AnyEvent) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return {name: v.hex() if isinstance(v, bytes) else v for name, v in fields.items()}


def _every_event() -> dict[str, Any]:
    log = _Writer()
    log.commit(Boot(writer="host:1"))
    log.commit(SetBounds(1_000), SetQueue("mail", weight=20, by="config"))
    log.commit(Enqueue([_job("a"), _job("b", b'{"n":[1,2.5]}', queue="mail", max_attempts=2)]))
    log.commit(Dispatch("a", 1), Dispatch("b", 2))
    child = (_job("a-child", task="echo"),)
    log.commit(Complete("a", log.token("a"), b'"done"', child))
    log.commit(Fail("b", log.token("b"), "no answer", delay_ms=0))
    log.commit(Dispatch("b", 1))
    log.flag(MARK)
    log.commit(Fail("b", log.token("b"), "no answer again"))
    log.commit(Requeue("b", b"[3]", "token:0a1b2c3d:ops"))
    log.commit(Enqueue([_job("later", run_at_ms=log.now_ms + 60_000, priority=0)]))
    log.commit(Cancel("later", "uid:1000"), Discard("later", "uid:1000"))
    log.commit(Dispatch("a-child", 1))
    log.commit(Release("a-child", log.token("a-child"), Cause.SNOOZE, 0))
    log.commit(Dispatch("a-child", 1))
    log.commit(Release("a-child", log.token("a-child"), Cause.DRAIN))
    log.commit(Dispatch("a-child", 1))
    log.commit(Expire("a-child", log.token("a-child"), error="ran longer than 600 s"))
    log.commit(Enqueue([_job("c", queue="brief", origin=1, by="token:0a1b2c3d")]))
    log.commit(Dispatch("c", 3))
    log.commit(Cancel("c", "token:0a1b2c3d:ops"))
    log.commit(ConfirmCancel("c", log.token("c"), error="stopped"))
    log.commit(Discard("c"), QueueForgotten("brief"))
    log.flag(CLOSE)
    says = "every event at least once, with a MARK and, at its end, a CLOSE"
    return log.vector("every-event", says)


def _restarts() -> dict[str, Any]:
    log = _Writer()
    log.commit(Boot(writer="host:1"))
    log.commit(Enqueue([_job(name, max_attempts=3) for name in ("a", "b", "c", "d")]))
    log.commit(Enqueue([_job("last", max_attempts=1)]))
    log.commit(*(Dispatch(name, 1) for name in ("a", "b", "c")))
    log.commit(Cancel("c"))
    log.commit(Boot(frozenset({log.token("a")}), writer="host:2"))
    log.commit(*(Dispatch(name, 1) for name in ("a", "b", "last")))
    log.commit(Boot(power_cut=True, writer="host:3"))
    log.commit(Dispatch("a", 1), Dispatch("d", 2))
    log.commit(Complete("a", log.token("a"), b"null"))
    log.commit(Dispatch("b", 1))
    log.commit(Release("b", log.token("b"), Cause.NEIGHBOUR))
    says = (
        "a restart that finds one job started, one not and one to be cancelled; then a power "
        "cut, which charges all and makes suspects"
    )
    return log.vector("restarts", says)


def text() -> str:
    """Returns the file."""
    logs = [_every_event(), _restarts()]
    first: dict[str, dict[str, Any]] = {}
    for event in (event for log in logs for event in log["events"]):
        first.setdefault(event["event"], event)
    # That each event stands in a log is for `tests/foreign/test_vectors.py` to say.
    by_name = {kind.NAME: kind for kind in ALL_EVENTS}
    events = []
    for name, shown in first.items():
        kind = by_name[name]
        fields = {field: shown[field] for field in kind.__struct_fields__}
        blobs = {f.name for f in msgspec.structs.fields(kind) if "bytes" in str(f.type)}
        given = {
            key: bytes.fromhex(value) if key in blobs and value is not None else value
            for key, value in fields.items()
        }
        packed = msgspec.msgpack.encode(kind(**given)).hex()
        tag = kind.__struct_config__.tag
        events.append({"event": name, "tag": tag, "fields": fields, "messagepack": packed})
    whole = {"store": STORE.hex(), "events": events, "logs": logs}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
