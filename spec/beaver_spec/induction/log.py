"""The log by induction: nothing is lost, whatever is written, synced, killed or cut, and whatever
fails.

What lives here: one segment as places for frames, each with what processes read and what
the disk has, and a writer and a recovery that follow `beaver.journal.wal` and
`beaver.journal.wal.repair`.  At most one frame is unsynced; all proofs rest on that.

What may not live here: the cut of a torn tail.  Here a frame is whole or it is not, and what
is torn stays so; that a cut is needed because blocks of two frames mix is for `Log.tla`.
"""

from __future__ import annotations

from typing import Final

from beaver_spec.induction.proof import Action, Formula, System, Values, Vocabulary

DOWN, FOUND, REWRITTEN, UP, REFUSED = range(5)
"""Phases of a process: those between DOWN and UP are recovery's."""

_LOG_SORTS: Final = {
    "cached": "frames",  # the frame at each place, as processes read it
    "cached_ok": "flags",  # and whether it is whole there
    "disk": "frames",  # the same as a power cut leaves it
    "disk_ok": "flags",
    "dirty": "flags",  # the kernel still means to write it
    "written": "frames",  # this timeline: what recovery accepted, then what was appended
    "wrote": "count",  # how many those are
    "told": "count",  # how many of them someone outside relies on
    "log": "count",  # how many the running process believes in
    "last": "frame",  # the last frame that recovery has read, in its memory
    "phase": "phase",
}


def _log_start(v: Vocabulary, s: Values) -> dict[str, Formula]:
    z3 = v.z3
    return {
        "an empty log": z3.And(
            v.every(lambda i: z3.Not(z3.Or(s["cached_ok"][i], s["disk_ok"][i], s["dirty"][i]))),
            s["wrote"] == 0,
            s["told"] == 0,
            s["log"] == 0,
            s["phase"] == UP,
        )
    }


def _log_actions(bug: str) -> dict[str, Action]:
    return {
        "write a frame": _write(bug),
        "sync it and acknowledge": _sync,
        "the sync fails": _sync_fails(bug),
        "the kernel writes back": _write_back,
        "the kernel writes back a part": _write_back_a_part,
        "the kernel drops a clean page": _evict,
        "kill": _kill,
        "kill in the middle of a write": _kill_in_write,
        "power cut": _power_cut,
        "recovery reads the log": _scan,
        "recovery rewrites the last frame": _rewrite(bug),
        "recovery syncs and accepts": _accept,
        "recovery's sync fails": _recovery_fails,
    }


def _write(bug: str) -> Action:
    def action(v: Vocabulary, s: Values, t: Values) -> Formula:
        z3, frame, at = v.z3, v.any("frame"), s["log"]
        room = at <= s["told"] + 1 if bug == "two unsynced" else at == s["told"]
        return z3.And(
            s["phase"] == UP,
            room,
            t["cached"] == z3.Store(s["cached"], at, frame),
            t["cached_ok"] == z3.Store(s["cached_ok"], at, True),
            t["dirty"] == z3.Store(s["dirty"], at, True),
            t["written"] == z3.Store(s["written"], at, frame),
            t["wrote"] == at + 1,
            t["log"] == at + 1,
            t["told"] == (at + 1 if bug == "acknowledge before sync" else s["told"]),
            *v.keep(s, t, "cached", "cached_ok", "dirty", "written", "wrote", "log", "told"),
        )

    return action


def _synced(v: Vocabulary, s: Values, t: Values, low: Formula, high: Formula) -> Formula:
    """Returns that what is dirty from `low` up to `high` goes to the disk."""
    z3 = v.z3

    def at(i: Formula) -> Formula:
        inside = z3.And(low <= i, i < high)
        goes = z3.And(inside, s["dirty"][i])
        return z3.And(
            t["disk"][i] == z3.If(goes, s["cached"][i], s["disk"][i]),
            t["disk_ok"][i] == z3.If(goes, s["cached_ok"][i], s["disk_ok"][i]),
            t["dirty"][i] == z3.And(s["dirty"][i], z3.Not(inside)),
        )

    return v.every(at)


def _not_synced(v: Vocabulary, s: Values, t: Values, low: Formula, high: Formula) -> Formula:
    """Returns that any part of that goes, and that all of it counts as clean from now on."""
    z3 = v.z3

    def at(i: Formula) -> Formula:
        inside = z3.And(low <= i, i < high)
        same = z3.And(t["disk"][i] == s["disk"][i], t["disk_ok"][i] == s["disk_ok"][i])
        whole = z3.And(t["disk"][i] == s["cached"][i], t["disk_ok"][i] == s["cached_ok"][i])
        torn = z3.And(z3.Not(_is_same(v, s, i)), z3.Not(t["disk_ok"][i]))
        return z3.And(
            z3.If(z3.And(inside, s["dirty"][i]), z3.Or(same, whole, torn), same),
            t["dirty"][i] == z3.And(s["dirty"][i], z3.Not(inside)),
        )

    return v.every(at)


def _is_same(v: Vocabulary, s: Values, i: Formula) -> Formula:
    """Returns that cache and disk have the same whole frame: no part of a write tears it."""
    return v.z3.And(s["disk_ok"][i], s["cached_ok"][i], s["disk"][i] == s["cached"][i])


_DISK: Final = ("disk", "disk_ok", "dirty")


def _sync(v: Vocabulary, s: Values, t: Values) -> Formula:
    return v.z3.And(
        s["phase"] == UP,
        s["log"] > s["told"],
        _synced(v, s, t, s["told"], s["log"]),
        t["told"] == s["log"],
        *v.keep(s, t, *_DISK, "told"),
    )


def _sync_fails(bug: str) -> Action:
    def action(v: Vocabulary, s: Values, t: Values) -> Formula:
        return v.z3.And(
            s["phase"] == UP,
            s["log"] > s["told"],
            _not_synced(v, s, t, s["told"], s["log"]),
            t["phase"] == (UP if bug == "go on after a failed sync" else DOWN),
            *v.keep(s, t, *_DISK, "phase"),
        )

    return action


def _write_back(v: Vocabulary, s: Values, t: Values) -> Formula:
    i = v.any("count")
    return v.z3.And(i >= 0, s["dirty"][i], _synced(v, s, t, i, i + 1), *v.keep(s, t, *_DISK))


def _write_back_a_part(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3, i = v.z3, v.any("count")
    return z3.And(
        i >= 0,
        s["dirty"][i],
        z3.Not(_is_same(v, s, i)),
        t["disk_ok"] == z3.Store(s["disk_ok"], i, False),
        *v.keep(s, t, "disk_ok"),
    )


def _evict(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3, i = v.z3, v.any("count")
    return z3.And(
        i >= 0,
        z3.Not(s["dirty"][i]),
        t["cached"] == z3.Store(s["cached"], i, s["disk"][i]),
        t["cached_ok"] == z3.Store(s["cached_ok"], i, s["disk_ok"][i]),
        *v.keep(s, t, "cached", "cached_ok"),
    )


def _kill(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3 = v.z3
    return z3.And(s["phase"] != REFUSED, t["phase"] == DOWN, *v.keep(s, t, "phase"))


def _kill_in_write(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3, at = v.z3, s["log"]
    return z3.And(
        s["phase"] == UP,
        at == s["told"],
        t["cached_ok"] == z3.Store(s["cached_ok"], at, False),
        t["dirty"] == z3.Store(s["dirty"], at, True),
        t["written"] == z3.Store(s["written"], at, v.any("frame")),
        t["wrote"] == at + 1,
        t["phase"] == DOWN,
        *v.keep(s, t, "cached_ok", "dirty", "written", "wrote", "phase"),
    )


def _power_cut(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3 = v.z3
    return z3.And(
        s["phase"] != REFUSED,
        t["cached"] == s["disk"],
        t["cached_ok"] == s["disk_ok"],
        t["dirty"] == z3.K(z3.IntSort(), False),
        t["phase"] == DOWN,
        *v.keep(s, t, "cached", "cached_ok", "dirty", "phase"),
    )


def _scan(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3, found, later = v.z3, v.any("count"), v.any("count")
    is_corrupt = z3.And(later > found, s["cached_ok"][later])
    is_sound = v.every(lambda i: z3.Implies(i > found, z3.Not(s["cached_ok"][i])))
    return z3.And(
        s["phase"] == DOWN,
        found >= 0,
        v.every(lambda i: z3.Implies(i < found, s["cached_ok"][i])),
        z3.Not(s["cached_ok"][found]),
        z3.Or(
            z3.And(is_sound, t["phase"] == FOUND),
            z3.And(is_corrupt, t["phase"] == REFUSED),
        ),
        t["log"] == found,
        t["last"] == s["cached"][found - 1],
        *v.keep(s, t, "phase", "log", "last"),
    )


def _rewrite(bug: str) -> Action:
    def action(v: Vocabulary, s: Values, t: Values) -> Formula:
        z3, at = v.z3, s["log"] - 1
        if bug == "last frame not rewritten":
            new = z3.And(*(t[n] == s[n] for n in ("cached", "cached_ok", "dirty")))
        else:
            written = z3.And(
                t["cached"] == z3.Store(s["cached"], at, s["last"]),
                t["cached_ok"] == z3.Store(s["cached_ok"], at, True),
                t["dirty"] == z3.Store(s["dirty"], at, True),
            )
            same = z3.And(*(t[n] == s[n] for n in ("cached", "cached_ok", "dirty")))
            new = z3.If(at >= 0, written, same)
        return z3.And(
            s["phase"] == FOUND,
            new,
            t["phase"] == REWRITTEN,
            *v.keep(s, t, "cached", "cached_ok", "dirty", "phase"),
        )

    return action


def _accept(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3 = v.z3

    def at(i: Formula) -> Formula:
        return z3.And(
            t["disk"][i] == z3.If(s["dirty"][i], s["cached"][i], s["disk"][i]),
            t["disk_ok"][i] == z3.If(s["dirty"][i], s["cached_ok"][i], s["disk_ok"][i]),
            z3.Not(t["dirty"][i]),
        )

    return z3.And(
        s["phase"] == REWRITTEN,
        v.every(at),
        t["phase"] == UP,
        t["told"] == s["log"],
        t["wrote"] == s["log"],
        *v.keep(s, t, *_DISK, "phase", "told", "wrote"),
    )


def _recovery_fails(v: Vocabulary, s: Values, t: Values) -> Formula:
    z3 = v.z3

    def at(i: Formula) -> Formula:
        same = z3.And(t["disk"][i] == s["disk"][i], t["disk_ok"][i] == s["disk_ok"][i])
        whole = z3.And(t["disk"][i] == s["cached"][i], t["disk_ok"][i] == s["cached_ok"][i])
        torn = z3.And(z3.Not(_is_same(v, s, i)), z3.Not(t["disk_ok"][i]))
        return z3.And(z3.If(s["dirty"][i], z3.Or(same, whole, torn), same), z3.Not(t["dirty"][i]))

    return z3.And(
        z3.Or(s["phase"] == FOUND, s["phase"] == REWRITTEN),
        v.every(at),
        t["phase"] == DOWN,
        *v.keep(s, t, *_DISK, "phase"),
    )


def _log_invariant(v: Vocabulary, s: Values) -> dict[str, Formula]:
    z3, told, log, phase = v.z3, s["told"], s["log"], s["phase"]
    recovers = z3.And(phase >= FOUND, phase <= REWRITTEN)
    ahead = log == told + 1

    def is_written(ok: str, frames: str, i: Formula) -> Formula:
        return z3.And(s[ok][i], s[frames][i] == s["written"][i])

    def at(i: Formula) -> Formula:
        cached, disk = is_written("cached_ok", "cached", i), is_written("disk_ok", "disk", i)
        return z3.And(
            z3.Implies(i < told, z3.And(cached, disk)),
            z3.Implies(i > told, z3.Not(z3.Or(s["cached_ok"][i], s["disk_ok"][i]))),
            z3.Implies(z3.And(i == told, s["disk_ok"][i]), z3.And(told < s["wrote"], disk)),
            z3.Implies(z3.And(i == told, s["cached_ok"][i]), z3.And(told < s["wrote"], cached)),
            z3.Implies(s["disk_ok"][i], s["cached_ok"][i]),
        )

    on_its_way = z3.And(
        s["cached_ok"][told], z3.Or(s["dirty"][told], s["disk_ok"][told])
    )  # a sync will bring it to the disk, or it is there
    return {
        "phases": z3.And(phase >= DOWN, phase <= UP),
        "at most one frame is ahead": z3.And(told >= 0, told <= s["wrote"], s["wrote"] <= told + 1),
        "what was told is whole everywhere, and nothing stands behind the next": v.every(at),
        "a writer believes what it wrote": z3.Implies(
            phase == UP,
            z3.And(log >= told, log == s["wrote"], z3.Implies(ahead, on_its_way)),
        ),
        "a recovery finds what was told, or one more": z3.Implies(
            recovers,
            z3.And(
                log >= told,
                log <= s["wrote"],
                z3.Implies(z3.And(log == told, told > 0), s["last"] == s["written"][told - 1]),
                z3.Implies(ahead, s["last"] == s["written"][told]),
                z3.Implies(log == told, z3.Not(s["cached_ok"][told])),
            ),
        ),
        "what was rewritten is on its way": z3.Implies(
            z3.And(phase == REWRITTEN, ahead), on_its_way
        ),
    }


def _log_promise(v: Vocabulary, s: Values) -> dict[str, Formula]:
    z3 = v.z3
    recovers = z3.And(s["phase"] >= FOUND, s["phase"] <= REWRITTEN)
    durable = v.every(
        lambda i: z3.Implies(
            i < s["told"], z3.And(s["disk_ok"][i], s["disk"][i] == s["written"][i])
        )
    )
    return {
        "what was acknowledged is on the disk": durable,
        "recovery finds all that was acknowledged": z3.Implies(recovers, s["log"] >= s["told"]),
        "recovery finds nothing that was not written": z3.Implies(recovers, s["log"] <= s["wrote"]),
        "no crash makes a start refuse": s["phase"] != REFUSED,
    }


LOG: Final = System(
    "the log",
    "nothing acknowledged is lost",
    _LOG_SORTS,
    _log_start,
    _log_actions,
    _log_invariant,
    _log_promise,
    {
        "acknowledge before sync": "a frame is acknowledged once it is written",
        "go on after a failed sync": "a failed sync is tried again instead of ending the process",
        "last frame not rewritten": "recovery syncs the file and does not rewrite its last frame",
        "two unsynced": "a second frame is written before the first is synced",
    },
)
