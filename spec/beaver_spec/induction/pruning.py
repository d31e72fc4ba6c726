"""Snapshots and pruning by induction: the log always reaches back to a good snapshot.

What lives here: the names of the newest and the older snapshot and of the first kept
segment, as processes see them and as a power cut leaves them.  A helper takes snapshot after
snapshot as `beaver.snapshot` and `beaver.helper.work` do; the newest one may go bad.
"""

from __future__ import annotations

from typing import Final

from beaver_spec.induction.proof import Action, Formula, System, Values, Vocabulary

IDLE, KEPT, NAMED, DURABLE = range(4)
"""Steps of taking a snapshot: the older one is kept, the new one is named, names are synced."""

_SORTS: Final = {
    "told": "count",  # last seq that someone relies on
    "newest": "count",  # seq of snapshot.json, as processes see it; 0: there is none
    "older": "count",  # and of snapshot.old.json
    "disk_newest": "count",  # the same as a power cut leaves them
    "disk_older": "count",
    "first": "count",  # first seq of the log, as processes see it
    "disk_first": "count",
    "taken": "count",  # seq of the snapshot that is being taken
    "bad": "flag",  # the newest snapshot of the disk has gone bad
    "phase": "phase",
}


def _start(v: Vocabulary, s: Values) -> dict[str, Formula]:
    empty = [s[n] == 0 for n in ("told", "newest", "older", "disk_newest", "disk_older", "taken")]
    return {
        "a new store": v.z3.And(
            *empty,
            s["first"] == 1,
            s["disk_first"] == 1,
            v.z3.Not(s["bad"]),
            s["phase"] == IDLE,
        )
    }


def _actions(bug: str) -> dict[str, Action]:
    return {
        "commit an event": _commit,
        "keep the newest snapshot as the older one": _keep,
        "name the new snapshot": _name,
        "sync the names": _sync,
        "prune the archive": _prune(bug),
        "be done": _finish(bug),
        "the newest snapshot goes bad": _rot,
        "kill": _kill,
        "power cut": _power_cut,
    }


def _commit(v: Vocabulary, s: Values, t: Values) -> Formula:
    return v.z3.And(t["told"] == s["told"] + 1, *v.keep(s, t, "told"))


def _keep(v: Vocabulary, s: Values, t: Values) -> Formula:
    """The snapshot itself is written and synced by now, under another name."""
    z3 = v.z3
    is_good = z3.And(s["newest"] > 0, z3.Not(s["bad"]))
    return z3.And(
        s["phase"] == IDLE,
        t["taken"] <= s["told"],
        t["taken"] > s["newest"],
        t["taken"] > s["older"],
        t["older"] == z3.If(is_good, s["newest"], s["older"]),
        t["newest"] == z3.If(is_good, 0, s["newest"]),
        t["phase"] == KEPT,
        *v.keep(s, t, "taken", "older", "newest", "phase"),
    )


def _name(v: Vocabulary, s: Values, t: Values) -> Formula:
    return v.z3.And(
        s["phase"] == KEPT,
        t["newest"] == s["taken"],
        t["phase"] == NAMED,
        *v.keep(s, t, "newest", "phase"),
    )


def _sync(v: Vocabulary, s: Values, t: Values) -> Formula:
    return v.z3.And(
        s["phase"] == NAMED,
        t["disk_newest"] == s["newest"],
        t["disk_older"] == s["older"],
        v.z3.Not(t["bad"]),
        t["phase"] == DURABLE,
        *v.keep(s, t, "disk_newest", "disk_older", "bad", "phase"),
    )


def _prune(bug: str) -> Action:
    def action(v: Vocabulary, s: Values, t: Values) -> Formula:
        z3 = v.z3
        smaller = z3.If(s["newest"] < s["older"], s["newest"], s["older"])
        floor = s["newest"] if bug == "prune below the newest" else smaller
        when = NAMED if bug == "prune before durable" else DURABLE
        return z3.And(
            s["phase"] == when,
            t["first"] >= s["first"],
            t["first"] <= floor + 1,
            # Unlinks reach the disk when they like, or with a sync.
            t["disk_first"] >= s["disk_first"],
            t["disk_first"] <= t["first"],
            *v.keep(s, t, "first", "disk_first"),
        )

    return action


def _finish(bug: str) -> Action:
    def action(v: Vocabulary, s: Values, t: Values) -> Formula:
        return v.z3.And(s["phase"] == DURABLE, t["phase"] == IDLE, *v.keep(s, t, "phase"))

    return action


def _rot(v: Vocabulary, s: Values, t: Values) -> Formula:
    return v.z3.And(s["phase"] == IDLE, s["newest"] > 0, t["bad"], *v.keep(s, t, "bad"))


def _kill(v: Vocabulary, s: Values, t: Values) -> Formula:
    """The next server syncs the names before it does anything."""
    z3 = v.z3
    return z3.And(
        t["disk_newest"] == s["newest"],
        t["disk_older"] == s["older"],
        t["disk_first"] == s["first"],
        t["bad"] == z3.And(s["bad"], s["phase"] != NAMED),
        t["phase"] == IDLE,
        *v.keep(s, t, "disk_newest", "disk_older", "disk_first", "bad", "phase"),
    )


def _power_cut(v: Vocabulary, s: Values, t: Values) -> Formula:
    """Any of the changes of names since the last sync is kept, each of them whole."""
    z3 = v.z3
    kept = z3.And(s["phase"] >= KEPT, t["older"] == s["older"])
    not_kept = t["older"] == s["disk_older"]
    named = z3.And(s["phase"] == NAMED, t["newest"] == s["taken"], z3.Not(t["bad"]))
    is_moved = z3.And(kept, s["older"] != s["disk_older"])
    gone = z3.And(is_moved, t["newest"] == 0, t["bad"] == s["bad"])
    still = z3.And(z3.Not(is_moved), t["newest"] == s["disk_newest"], t["bad"] == s["bad"])
    in_place = z3.And(t["newest"] == s["disk_newest"], t["bad"] == s["bad"])
    return z3.And(
        z3.If(
            s["phase"] == DURABLE,
            z3.And(t["older"] == s["older"], t["newest"] == s["newest"], t["bad"] == s["bad"]),
            z3.Or(
                z3.And(not_kept, z3.Or(in_place, named)),
                z3.And(kept, z3.Or(gone, still, named)),
            ),
        ),
        t["first"] >= s["disk_first"],
        t["first"] <= s["first"],
        t["disk_first"] == t["first"],
        t["disk_newest"] == t["newest"],
        t["disk_older"] == t["older"],
        t["phase"] == IDLE,
        t["taken"] == s["taken"],
        t["told"] == s["told"],
    )


def _invariant(v: Vocabulary, s: Values) -> dict[str, Formula]:
    z3, first, phase = v.z3, s["first"], s["phase"]
    names = ("newest", "older", "disk_newest", "disk_older")
    is_good = z3.And(s["disk_newest"] > 0, z3.Not(s["bad"]))
    synced = z3.Or(phase == IDLE, phase == DURABLE)
    return {
        "phases": z3.And(phase >= IDLE, phase <= DURABLE),
        "snapshots hold what is durable": z3.And(
            *(z3.And(s[n] >= 0, s[n] <= s["told"]) for n in names), s["taken"] <= s["told"]
        ),
        "the log only shrinks from below": z3.And(s["disk_first"] >= 1, s["disk_first"] <= first),
        "the log reaches back to each older snapshot": z3.And(
            first <= s["older"] + 1, first <= s["disk_older"] + 1
        ),
        "and to the newest, where it is good": z3.Implies(is_good, first <= s["disk_newest"] + 1),
        "names are durable between snapshots": z3.Implies(
            synced,
            z3.And(s["newest"] == s["disk_newest"], s["older"] == s["disk_older"]),
        ),
        "keeping moves the newest, if it is good": z3.Implies(
            z3.Not(synced),
            z3.And(
                s["older"] == z3.If(is_good, s["disk_newest"], s["disk_older"]),
                s["taken"] >= first - 1,
            ),
        ),
        "a kept one leaves no newest": z3.Implies(
            phase == KEPT, s["newest"] == z3.If(is_good, 0, s["disk_newest"])
        ),
        "the new one has its name": z3.Implies(phase == NAMED, s["newest"] == s["taken"]),
        "what is durable is new": z3.Implies(phase == DURABLE, z3.Not(s["bad"])),
    }


def _promise(v: Vocabulary, s: Values) -> dict[str, Formula]:
    """What a recovery needs to find after a power cut, and after a kill."""
    z3 = v.z3

    def base(newest: Formula, older: Formula, bad: Formula) -> Formula:
        return z3.If(z3.And(newest > 0, z3.Not(bad)), newest, older)

    disk = base(s["disk_newest"], s["disk_older"], s["bad"])
    seen = base(s["newest"], s["older"], z3.And(s["bad"], z3.Not(s["phase"] == NAMED)))
    return {
        "after a power cut, the log reaches back to the snapshot that is used": s["first"]
        <= disk + 1,
        "after a kill, too": s["first"] <= seen + 1,
        "no snapshot is ahead of what is durable": z3.And(disk <= s["told"], seen <= s["told"]),
    }


PRUNING: Final = System(
    "snapshots and pruning",
    "the log reaches back to a good snapshot",
    _SORTS,
    _start,
    _actions,
    _invariant,
    _promise,
    {
        "prune before durable": "the archive is pruned before the snapshot's name is durable",
        "prune below the newest": "the archive is pruned below the newest snapshot, not the older",
    },
)
