"""Looking for an answer before sleeping: while a core is idle, and not otherwise."""

from __future__ import annotations

import pytest

from beaver.system import spinning
from beaver.system.spinning import LOOK_S, PAUSE_MAX_S, PAUSE_S, SLOW_YIELD_S, Looking


class Machine:
    """Time, cores and what a yield takes on them."""

    def __init__(
        self, cores: int = 2, running: int | None = 1, vain_pause_s: float | None = None
    ) -> None:
        self.now_s, self.yield_s, self.running = 0.0, 1e-6, running
        self.looks = self.asked = 0
        self.answer_after: float | None = None
        self.looking = Looking(
            cores, self._runnable, lambda: self.now_s, self._yield, vain_pause_s=vain_pause_s
        )

    def _runnable(self) -> int | None:
        self.asked += 1
        return self.running

    def _yield(self) -> None:
        self.now_s += self.yield_s

    def look_for_one_that_comes(self, after_s: float | None) -> bool:
        due_s = None if after_s is None else self.now_s + after_s

        def look(timeout: int) -> bool:
            assert timeout == 0
            self.looks += 1
            return due_s is not None and self.now_s >= due_s

        return self.looking.sees(look)


def test_an_answer_that_comes_soon_is_seen_without_sleeping_or_asking_the_kernel() -> None:
    machine = Machine()
    assert machine.look_for_one_that_comes(LOOK_S / 2)
    assert machine.asked == 0


def test_it_is_looked_for_a_moment_only() -> None:
    machine = Machine()
    assert not machine.look_for_one_that_comes(None)
    assert machine.now_s == pytest.approx(LOOK_S, abs=2e-6)
    assert machine.look_for_one_that_comes(LOOK_S / 2)  # with an idle core, the next time again


def test_a_slow_yield_beside_an_idle_core_is_no_reason_to_sleep() -> None:
    machine = Machine(running=2)
    machine.yield_s = SLOW_YIELD_S * 2
    assert machine.look_for_one_that_comes(LOOK_S / 2)
    assert machine.asked > 0


@pytest.mark.parametrize("running", [3, None])
def test_where_others_want_the_cores_the_thread_sleeps_at_once_and_longer_each_time(
    running: int | None,
) -> None:
    """Also where nobody says how many there are: then a slow yield is all that is known."""
    machine = Machine(running=running)
    machine.yield_s = SLOW_YIELD_S * 2
    pauses = []
    assert not machine.look_for_one_that_comes(LOOK_S)
    for _ in range(10):
        paused_s, looks = machine.now_s, machine.looks
        while machine.looks == looks:
            machine.now_s += PAUSE_S / 10
            assert not machine.look_for_one_that_comes(LOOK_S)
        pauses.append(machine.now_s - paused_s)
    assert pauses[0] == pytest.approx(PAUSE_S, rel=0.2)
    assert pauses[1] == pytest.approx(2 * PAUSE_S, rel=0.2)
    assert pauses[-1] == pytest.approx(PAUSE_MAX_S, rel=0.1)


def test_no_answer_and_busy_cores_are_a_reason_to_sleep_however_quick_the_yields() -> None:
    """The server may wait for the other core while we hold this one."""
    machine = Machine(running=3)
    assert not machine.look_for_one_that_comes(None)
    looks = machine.looks
    assert not machine.look_for_one_that_comes(0.0)
    assert machine.looks == looks


def test_where_nobody_counts_an_answer_that_takes_long_is_no_sign_of_busy_cores() -> None:
    """Else whoever waits for results would find itself asleep at its next short call."""
    machine = Machine(running=None)
    assert not machine.look_for_one_that_comes(None)
    assert machine.look_for_one_that_comes(LOOK_S / 2)


def test_where_nothing_need_come_a_look_in_vain_is_followed_by_ever_longer_pauses() -> None:
    """Else a server would look behind each of a hundred requests a second: on idle cores, too."""
    machine = Machine(vain_pause_s=PAUSE_S / 10)
    looked = 0
    for _ in range(500):
        looks = machine.looks
        assert not machine.look_for_one_that_comes(None)
        looked += machine.looks > looks
        machine.now_s += PAUSE_S
    assert 2 <= looked < 20


def test_what_comes_soon_again_and_again_is_looked_for_each_time() -> None:
    machine = Machine(vain_pause_s=PAUSE_S / 10)
    assert not machine.look_for_one_that_comes(None)
    assert not machine.look_for_one_that_comes(0.0)
    machine.now_s += PAUSE_S / 10
    assert all(machine.look_for_one_that_comes(LOOK_S / 2) for _ in range(100))


def test_who_may_use_some_cores_only_does_not_ask_about_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spinning, "cores", lambda: 1_000_000)
    assert spinning.runnable() is None


def test_it_is_looked_on_once_the_cores_are_free_again() -> None:
    machine = Machine(running=3)
    assert not machine.look_for_one_that_comes(None)
    machine.now_s += PAUSE_S
    machine.running = 1
    assert machine.look_for_one_that_comes(LOOK_S / 2)


def test_on_a_single_core_nobody_looks() -> None:
    machine = Machine(cores=1)
    assert not machine.look_for_one_that_comes(0.0)
    assert machine.looks == 0


def test_the_kernel_says_how_many_tasks_are_runnable() -> None:
    found = spinning.runnable()
    assert found is not None
    assert found >= 1
