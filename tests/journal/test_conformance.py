"""What every journal promises its writer and its readers, one claim after the other."""

from __future__ import annotations

import json

import pytest

from beaver.errors import LostLeadership, StorageFailed
from beaver.journal.port import Appended, AppendOutcome, Deposed, Failed, append_now
from beaver_model.events import AnyEvent
from tests.journal.journals import KINDS, Journals, Remote
from tests.worlds.journal import enqueued


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kept(request: pytest.FixtureRequest) -> Journals:
    made: Journals = request.param()
    return made


def some(*names: str) -> list[AnyEvent]:
    return [enqueued(name) for name in names]


def test_what_was_appended_is_read_in_order_each_behind_its_position(kept: Journals) -> None:
    batches = [some("a"), some("b", "c"), some("d")]
    positions = []
    for batch in batches:
        outcome = kept.append(batch)
        assert isinstance(outcome, Appended)
        assert outcome.position == kept.journal.position
        assert outcome.bytes > 0
        positions.append(outcome.position)
    commits = kept.commits()
    assert [list(commit.events) for commit in commits] == batches
    assert [commit.position for commit in commits] == positions
    assert len(set(positions)) == 3
    for index, position in enumerate(positions):
        assert [list(commit.events) for commit in kept.commits(position)] == batches[index + 1 :]


def test_first_seqs_are_told_where_every_commit_counts(kept: Journals) -> None:
    kept.append(some("a", "b"))
    kept.append(some("c"))
    told = [commit.first_seq for commit in kept.commits()]
    assert told == ([None, None] if kept.journal.is_stamped else [1, 3])


def test_a_stamp_comes_back_as_it_was_given(kept: Journals) -> None:
    kept.append(some("a"))
    (commit,) = kept.commits()
    assert commit.stamp == ((1, "me", 1) if kept.journal.is_stamped else None)


def test_an_append_behind_a_place_that_was_taken_is_deposed_and_leaves_no_trace(
    kept: Journals,
) -> None:
    kept.append(some("a"))
    place = kept.journal.position
    kept.rival(some("theirs"))
    before = kept.events()
    outcome = kept.append(some("mine"), place)
    assert isinstance(outcome, Deposed)
    assert outcome.reason
    assert kept.events() == before
    kept.open()
    assert kept.events() == before, "nor later"


def test_whoever_opens_it_anew_goes_on_behind_everything(kept: Journals) -> None:
    kept.append(some("a"))
    kept.rival(some("theirs"))
    kept.open()
    assert isinstance(kept.append(some("b")), Appended)
    names = [event.job for commit in kept.commits() for event in commit.events]  # type: ignore[union-attr]
    assert names == ["a", "theirs", "b"]


def test_done_is_called_once_also_where_it_is_waited_for(kept: Journals) -> None:
    outcomes = kept.start(some("a"))
    kept.journal.wait()
    kept.journal.wait()
    assert [type(outcome) for outcome in outcomes] == [Appended]


def test_only_one_append_may_be_under_way(kept: Journals) -> None:
    outcomes = kept.start(some("a"))
    if not outcomes:
        with pytest.raises(AssertionError, match="one append at a time"):
            kept.start(some("b"))
        kept.journal.wait()
    assert len(kept.commits()) == 1


def test_the_position_moves_only_with_the_outcome(kept: Journals) -> None:
    before = kept.journal.position
    outcomes = kept.start(some("a"))
    if not outcomes:
        assert kept.journal.position == before
    kept.journal.wait()
    assert kept.journal.position != before


def test_a_reader_sees_nothing_that_may_still_be_lost(kept: Journals) -> None:
    outcomes = kept.start(some("a"))
    if not outcomes:
        assert kept.commits() == []
    kept.journal.wait()
    assert len(kept.commits()) == 1


def test_a_position_can_be_stored_and_outlives_a_quiet_moment(kept: Journals) -> None:
    kept.append(some("a"))
    position = tuple(json.loads(json.dumps(kept.journal.position)))
    kept.journal.idle()
    kept.journal.idle()
    assert kept.commits(position) == []
    assert isinstance(kept.append(some("b"), position), Appended)
    assert [list(commit.events) for commit in kept.commits(position)] == [some("b")]
    kept.journal.idle()
    kept.open()
    assert [list(commit.events) for commit in kept.commits(position)] == [some("b")]


def test_room_that_was_reserved_is_there(kept: Journals) -> None:
    for size in (1, 1_000, 3_000_000):
        room = kept.journal.reserve(size)
        assert room >= size
    payload = kept.payload([enqueued("large", b"1" * 2_900_000)])
    assert len(payload) <= kept.journal.commit_bytes_max
    assert append_now(kept.journal, payload, 1).bytes >= len(payload)


def test_room_may_be_asked_for_while_an_append_is_under_way(kept: Journals) -> None:
    """It waits for that one, if it has to."""
    outcomes = kept.start(some("a"))
    room = kept.journal.reserve(1)
    assert kept.journal.reserve(min(room + 1, 1 << 24))
    kept.journal.wait()
    assert [type(outcome) for outcome in outcomes] == [Appended]
    assert isinstance(kept.append(some("b")), Appended)


def test_a_store_has_an_id_that_stays(kept: Journals) -> None:
    store = kept.journal.store
    kept.append(some("a"))
    kept.open()
    assert kept.journal.store == store
    assert len(store) == 16


@pytest.mark.parametrize("how", ["close", "abandon"])
def test_once_given_up_it_takes_nothing_and_another_one_does(kept: Journals, how: str) -> None:
    kept.append(some("a"))
    former = kept.journal
    getattr(former, how)()
    before = former.position
    outcomes: list[AppendOutcome] = []
    payload = kept.payload(some("late"))
    former.append(before, payload, 1, outcomes.append)
    assert [type(outcome) for outcome in outcomes] == [Failed]
    with pytest.raises(StorageFailed):
        append_now(former, payload, 1)
    kept.open()
    assert isinstance(kept.append(some("b")), Appended)
    assert len(kept.commits()) == 2


def test_a_writer_without_a_loop_is_told_by_an_exception(kept: Journals) -> None:
    appended = append_now(kept.journal, kept.payload(some("a")), 1)
    assert appended.position == kept.journal.position
    if isinstance(kept, Remote):
        kept.rival(some("theirs"))
        with pytest.raises(LostLeadership):
            append_now(kept.journal, kept.payload(some("b")), 1)


def test_check_finds_nothing_where_nothing_has_happened(kept: Journals) -> None:
    kept.append(some("a"))
    kept.journal.check()
