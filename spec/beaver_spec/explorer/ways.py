"""Every way on from a world: which rules apply in each phase.

What may not live here: what an action does (`server_rules`, `worker_rules`, `lease_rules`,
`client_rules`), and
the rules that tests break (`rules`).
"""

from __future__ import annotations

from beaver_spec.explorer import client_rules, lease_rules, server_rules, worker_rules
from beaver_spec.explorer.moment import Moment, Next, Way
from beaver_spec.explorer.rules import Rules
from beaver_spec.explorer.world import BOOTING, DOWN, UP, Rest, World, rest_of


def ways(rules: Rules, rest: Rest) -> list[Way]:
    """Returns every way on from the worlds that differ in what clients know alone."""
    moment = Moment(rules, rest)
    phase = moment.globe.phase
    server_rules.crashes(moment)
    if phase == DOWN:
        server_rules.down(moment)
        return moment.out
    if moment.batch:
        server_rules.sync(moment)
    if phase == BOOTING:
        return moment.out
    if rules.scope.remote:
        lease_rules.remote_workers_act(moment)
    else:
        worker_rules.workers_act(moment)
    worker_rules.late_reports(moment)
    if phase == UP:
        client_rules.wakes(moment)
        client_rules.clients(moment)
        client_rules.dispatches(moment)
        client_rules.dispatches_of_several(moment)
        server_rules.reloads(moment)
    else:
        server_rules.drained(moment)
    return moment.out


def successors(rules: Rules, world: World) -> list[Next]:
    """Returns every way on from a world."""
    return [
        Next(way.action, (*way.rest, rules.tell(world[5], way.tells)), way.wrong, way.steps)
        for way in ways(rules, rest_of(world))
    ]
