"""Counterexamples told: numbered steps in domain words, a diagram, and a test to keep.

A counterexample is replayed unreduced over whole states (`concrete`), so that jobs and
workers keep their names and the seqs are those of a log.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from beaver_model.events import AnyEvent, Booted, Dispatched, JobEvent
from beaver_spec.explorer.actions import Action
from beaver_spec.explorer.concrete import ConcreteReplay, Happened, unreduced
from beaver_spec.explorer.explorer import Counterexample, Explorer
from beaver_spec.explorer.properties import ALL_PROPERTIES
from beaver_spec.explorer.rows import NAMES
from beaver_spec.explorer.scopes import SCOPES, Scope
from beaver_spec.explorer.world import FORMER, RUNNING


class ToldCounterexample(msgspec.Struct, frozen=True):
    """A counterexample, ready to print."""

    scope: str
    property: str
    claim: str
    """The claim of the property."""
    message: str
    steps: list[str]
    """Numbered sentences in domain words."""
    diagram: str
    """A Mermaid sequence diagram."""
    test: str
    """Source of a pytest case that replays it."""


def tell(explorer: Explorer, found: Counterexample) -> ToldCounterexample:
    """Returns the story of a counterexample that an exploration found."""
    actions = unreduced(explorer, found.worlds, found.actions)
    run = ConcreteReplay(explorer.scope, explorer.space.model, type(explorer.rules))
    run.run(actions)
    teller = _Teller(run)
    lines = [teller.tell(happened) for happened in run.happened]
    steps = [f"{number}. {line}" for number, line in enumerate(lines, 1)]
    wrong = list(run.happened[-1].wrong) if run.happened else []
    if found.probed:
        steps.append(f"{len(steps) + 1}. Every command is put to the state on disk.")
        wrong += run.probe()
    messages = [w.message for w in wrong if w.property == found.wrong.property]
    message = messages[0] if messages else found.wrong.message
    steps.append(f"{len(steps) + 1}. Wrong: {message} ({found.wrong.property}).")
    return ToldCounterexample(
        scope=explorer.scope.name,
        property=found.wrong.property,
        claim=ALL_PROPERTIES.get(found.wrong.property, ""),
        message=message,
        steps=steps,
        diagram=_diagram(explorer.scope, found, run, teller),
        test=case_source(explorer.scope, found, actions, lines, message),
    )


# -- in words ------------------------------------------------------------------------------------

_ENDS: Final = {
    "ok": "reports that {job} ended well",
    "fail": "reports that {job} failed",
    "fatal": "reports that {job} failed for good",
    "softly": "stops {job}, which ran over its limit",
    "timeout": "is killed and reaped: {job} ran over its limit",
    "died": "dies while it runs {job}",
    "snooze": "reports that {job} snoozes",
    "drained": "is killed and reaped at the end of the grace, and {job} is given back",
    "child": "reports that {job} ended well and enqueued {child}",
    "unheard": "ends {job}, and no server hears it",
}
_LATE: Final = {"ok": "ended well", "fail": "failed"}
_PLAIN: Final = {
    "drain": "The server begins to stop in order: nothing is dispatched any more",
    "reload": "New workers take over: the old ones end what they run, and leave",
    "stopped": "The server has stopped in order",
    "pause": "An operator pauses the queue",
    "resume": "An operator resumes the queue",
}
_REQUESTS: Final = {
    "same": "A client enqueues {job}",
    "other": "A client sends {job} again, with other content",
    "later": "A client enqueues {job} for a later time",
    "second": "A client enqueues {job} in the second queue",
}


class _Teller:
    """Turns what happened into sentences."""

    def __init__(self, run: ConcreteReplay) -> None:
        self.parts = run.rules.parts
        self.rows = run.space.rows
        self._words: dict[str, Callable[[Happened], str]] = {
            "enqueue": lambda h: _REQUESTS[h.action[2]].format(job=quoted(h.action[1])),
            "dispatch": lambda h: (
                f"The server gives {quoted(h.action[1])} to worker {h.action[2] + 1}, in memory"
            ),
            "dispatch-several": lambda h: (
                f"The server gives {quoted(h.action[1])} and {quoted(h.action[2])} to worker "
                f"{h.action[3] + 1} with one command, in memory"
            ),
            "wake": lambda h: f"Time passes: {quoted(h.action[1])} may run now",
            "cancel": lambda h: f"An operator cancels {quoted(h.action[1])}",
            "requeue": lambda h: f"An operator requeues {quoted(h.action[1])}",
            "discard": lambda h: f"An operator discards {quoted(h.action[1])}",
            "start": lambda h: (
                f"Worker {h.action[1] + 1} writes its slot and starts "
                f"{self._held(h, RUNNING, after=True)}"
            ),
            "lease": lambda h: (
                f"Nothing was heard of remote worker {h.action[1] + 1} for its lease: what it was "
                "given is taken back"
            ),
            "finish": self._finish,
            "end": lambda h: (
                f"On worker {h.action[1] + 1} {self._held(h, RUNNING)} "
                f"{_LATE[h.action[2]]}; the outcome waits to be read"
            ),
            "hear": lambda h: (
                f"The server reads {counted(h.action[2], 'outcome')} of worker {h.action[1] + 1}"
            ),
            "overtaken": lambda h: (
                f"Worker {h.action[1] + 1} is killed for an attempt that has ended already; what "
                "it reported is read, and what runs there now is given back"
            ),
            "stop": lambda h: (
                f"Worker {h.action[1] + 1} is killed and reaped: "
                f"{self._held(h, RUNNING)} is cancelled"
            ),
            "kill": self._kill,
            "die": lambda h: f"Worker {h.action[1] + 1} dies before it starts what it holds",
            "recall": lambda h: f"The server takes back what worker {h.action[1] + 1} has not read",
            "recall-cancelled": lambda h: (
                f"The server takes back the cancelled {self._at(h)}, which has not begun"
            ),
            "give-back": lambda h: f"The server gives back {self._at(h)}, which had not begun",
            "late": self._late,
            "sync": self._sync,
            "boot": lambda _: (
                "A server starts: it reads the slots, and logs BOOT"
                if run.space.scope.stale
                else "A server starts: it kills leftover workers, reads the slots, and logs BOOT"
            ),
            "crash": lambda h: f"The server is killed; {self._kept(h)}",
            "cut": lambda h: f"The power fails, and the slots are gone; {self._kept(h)}",
        }

    def tell(self, happened: Happened) -> str:
        """Returns one step as a sentence, with what it led to."""
        kind = happened.action[0]
        words = self._words.get(kind)
        sentence = words(happened) if words else _PLAIN[kind]
        return f"{sentence}{self.outcome(happened)}."

    def outcome(self, happened: Happened) -> str:
        """Returns what the model made of it."""
        if happened.events is None:
            return ""
        if happened.refusal:
            return f": refused, {happened.refusal}"
        if not happened.events:
            return ": nothing changes"
        told = [event_words(seq, e) for seq, e in enumerate(happened.events, happened.first_seq)]
        return ": " + ", ".join(told)

    def _finish(self, happened: Happened) -> str:
        place, how = happened.action[1], happened.action[2]
        child = quoted(happened.action[3]) if how == "child" else ""
        words = _ENDS[how].format(job=self._held(happened, RUNNING), child=child)
        return f"Worker {place + 1} {words}"

    def _kill(self, happened: Happened) -> str:
        place, *offenders = happened.action[1:]
        worker = self.parts.crews.values[happened.before[3]][place]
        jobs = " and ".join(quoted(worker[index].job) for index in offenders)
        return f"Worker {place + 1} is killed and reaped for {jobs}, which did not stop"

    def _late(self, happened: Happened) -> str:
        job, token = self.parts.stales.values[happened.before[4]][happened.action[1]]
        return (
            f"A worker that outlived its server reports that {quoted(job)} (token {token}) "
            f"{_LATE[happened.action[2]]}"
        )

    def _held(self, happened: Happened, phase: int, *, after: bool = False) -> str:
        world = happened.after if after else happened.before
        worker = self.parts.crews.values[world[3]][happened.action[1]]
        held = next(h for h in worker if h.phase % FORMER == phase)
        return f"{quoted(held.job)} (token {held.label})"

    def _at(self, happened: Happened) -> str:
        worker = self.parts.crews.values[happened.before[3]][happened.action[1]]
        held = worker[happened.action[2]]
        return f"{quoted(held.job)} (token {held.label})"

    def _sync(self, happened: Happened) -> str:
        waiting = len(self.parts.batches.values[happened.before[2]])
        synced = happened.action[1]
        what = "The batch" if synced == waiting else f"The first {synced} of {waiting} commands"
        return f"{what} reached the disk: replies go out, and attempts go to their workers"

    def _kept(self, happened: Happened) -> str:
        batch = self.parts.batches.values[happened.before[2]]
        if not batch:
            return "nothing was unsynced"
        kept = happened.action[1]
        forgets = ", and it is forgotten that one of them began" if happened.action[2:] else ""
        return f"of {len(batch)} unsynced commands {kept or 'none'} had reached the disk{forgets}"


def quoted(job: int) -> str:
    """Returns a job's name for sentences."""
    return f"`{NAMES[job]}`"


def counted(count: int, what: str) -> str:
    """Returns a number of things in words."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def event_words(seq: int, event: AnyEvent) -> str:
    """Returns an event in words."""
    if isinstance(event, Booted):
        return f"BOOT (seq {seq})"
    if isinstance(event, Dispatched):
        return f"DISPATCH of `{event.job}`, token {seq}"
    if isinstance(event, JobEvent):
        cause = getattr(event, "cause", "")
        return f"{event.NAME} of `{event.job}`{f', {cause}' if cause else ''} (seq {seq})"
    return f"{event.NAME} (seq {seq})"


# -- as a diagram --------------------------------------------------------------------------------


def _diagram(scope: Scope, found: Counterexample, run: ConcreteReplay, teller: _Teller) -> str:
    """Returns a Mermaid sequence diagram of what happened."""
    lines = ["sequenceDiagram", "    participant C as clients", "    participant S as server"]
    lines.append("    participant D as disk")
    lines += [f"    participant W{n} as worker {n}" for n in range(1, scope.workers + 1)]
    for happened in run.happened:
        arrow, text = _arrow(happened)
        outcome = teller.outcome(happened).replace("`", "").replace(";", ",").strip(": ")
        lines.append(f"    {arrow}: {text}{f' [{outcome}]' if outcome else ''}")
    lines.append(f"    Note over C,W{scope.workers}: wrong, {found.wrong.property}")
    return "\n".join(lines)


def _arrow(happened: Happened) -> tuple[str, str]:
    action = happened.action
    kind, place = action[0], action[1] if len(action) > 1 else 0
    if kind in {"enqueue", "cancel", "requeue", "discard"}:
        return "C->>S", f"{kind} {NAMES[place]}"
    if kind in {"pause", "resume", "drain", "reload"}:
        return "C->>S", kind
    if kind == "sync":
        return "S->>D", "sync"
    if kind in {"crash", "cut"}:
        return "Note over S,D", f"{'kill -9' if kind == 'crash' else 'power cut'}, {place} kept"
    if kind == "dispatch":
        return "Note over S", f"{NAMES[place]} is for worker {action[2] + 1}"
    if kind == "dispatch-several":
        return (
            "Note over S",
            f"{NAMES[place]} and {NAMES[action[2]]} are for worker {action[3] + 1}",
        )
    if kind in {"start", "die"}:
        return f"Note over W{place + 1}", kind
    if kind == "finish":
        return f"W{place + 1}->>S", str(action[2])
    if kind == "end":
        return f"Note over W{place + 1}", f"ended, {action[2]}"
    if kind == "hear":
        return f"W{place + 1}->>S", counted(action[2], "outcome")
    if kind in {"stop", "kill", "overtaken", "recall", "recall-cancelled", "give-back"}:
        return f"S->>W{place + 1}", kind
    if kind == "late":
        return "Note over S", f"a late report, {action[2]}"
    if kind == "wake":
        return "Note over S", f"the time of {NAMES[place]} comes"
    return "Note over S", kind


# -- as a test -----------------------------------------------------------------------------------


def case_source(
    scope: Scope,
    found: Counterexample,
    actions: Sequence[Action],
    lines: Sequence[str],
    message: str,
) -> str:
    """Returns the source of a pytest case that fails while the bug is there."""
    name = found.wrong.property
    body = "\n".join(
        f"{_comment(f'{number}. {line}')}\n            {_literal(action)},"
        for number, (action, line) in enumerate(zip(actions, lines, strict=False), 1)
    )
    extra = "        ends=True,\n" if name == "no_job_stuck" else ""
    extra += "        probe=True,\n" if found.probed else ""
    return f'''"""A counterexample of `beaver check`, scope {scope.name}: {name}."""

from beaver_spec.explorer.concrete import replay
from beaver_spec.explorer.scopes import {_scope_name(scope)}


def test_{name}() -> None:
{_docstring(message)}
    replay(
        {_scope_source(scope)},
        [
{body}
        ],
{extra}    )
'''


def _comment(line: str) -> str:
    return "\n".join(textwrap.wrap(line, 84, initial_indent=_HASH, subsequent_indent=_HASH + "   "))


_HASH: Final = "            # "


def _docstring(message: str) -> str:
    text = f'"""{message[:1].upper()}{message[1:]}."""'
    return "\n".join(textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent="    "))


def _literal(action: Action) -> str:
    parts = [json.dumps(part) for part in action]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _scope_name(scope: Scope) -> str:
    return "scope_named" if scope in SCOPES else "Scope"


def _scope_source(scope: Scope) -> str:
    if scope in SCOPES:
        return f'scope_named("{scope.name}")'
    plain = Scope(name="", claim="", jobs=0, workers=0, attempts=0)
    every: dict[str, Any] = msgspec.structs.asdict(scope)
    fields = [f"{k}={v!r}" for k, v in every.items() if v != getattr(plain, k)]
    if scope.claim == "":
        fields.insert(1, 'claim=""')
    return f"Scope({', '.join(fields)})"
