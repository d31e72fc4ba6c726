"""Durations, times and sizes are read as people write them, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver.errors import InvalidInput
from beaver.text.durations import (
    duration_text,
    format_duration,
    format_time,
    parse_duration_ms,
    parse_size_bytes,
    parse_time_ms,
    size_text,
)
from beaver_model.bounds import TIME_MS_MAX


def repr_short(value: object) -> str:
    """Names a case by its beginning."""
    return repr(value)[:12]


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1_500),
        ("0", 0),
        ("7", 7_000),
        (" 2 ", 2_000),
        (7, 7_000),
        (0.25, 250),
        (timedelta(minutes=1), 60_000),
    ],
)
def test_durations_are_read_as_written(written: Any, ms: int) -> None:
    assert parse_duration_ms(written) == ms


_NO_DURATIONS = ["", "5x", "-5s", "5 s", "s", "1h 30m", "5m!", -1, float("nan"), float("inf"), True]


@pytest.mark.parametrize("written", [*_NO_DURATIONS, 10**400, "9" * 400 + "d"], ids=repr_short)
def test_what_is_no_duration_is_refused_by_name(written: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^--grace: "):
        parse_duration_ms(written, "--grace")


@pytest.mark.parametrize(
    "written", ["1" * 5_000, "1" * 400 + ".5GB", 1 << 62, "8EB", "x"], ids=repr_short
)
def test_an_absurd_size_is_refused_by_name(written: int | str) -> None:
    """However long its number is: nothing overflows on the way."""
    with pytest.raises(InvalidInput, match=r"^--max-rss: "):
        parse_size_bytes(written, "--max-rss")


@given(st.integers(0, 10**13))
def test_a_duration_survives_being_written(ms: int) -> None:
    assert parse_duration_ms(duration_text(ms)) == ms


@given(st.integers(0, 10**15))
def test_a_size_survives_being_written(size: int) -> None:
    assert parse_size_bytes(size_text(size)) == size


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0ms"), (40, "40ms"), (1_500, "1.5s"), (65_000, "1m 5s"), (7_200_000, "2h")],
)
def test_durations_are_shown_in_two_units(ms: int, shown: str) -> None:
    assert format_duration(ms) == shown


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00.123+02:00", datetime(2030, 1, 31, 10, 0, 0, 123_000, tzinfo=UTC)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
    ],
)
def test_iso_times_are_read_and_without_an_offset_mean_utc(written: str, moment: datetime) -> None:
    assert parse_time_ms(written) == round(moment.timestamp() * 1000)


def test_times_in_ms_are_taken_as_they_are() -> None:
    assert parse_time_ms(1_900_000_000_123) == parse_time_ms("1900000000123") == 1_900_000_000_123


@given(st.integers(0, TIME_MS_MAX))
def test_a_time_survives_being_shown(ms: int) -> None:
    assert parse_time_ms(format_time(ms)) == ms


@given(st.integers(0, TIME_MS_MAX), st.integers(-12, 12))
def test_a_datetime_keeps_its_millisecond_in_any_zone(ms: int, hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    moment = datetime(1970, 1, 2, tzinfo=UTC) + timedelta(milliseconds=ms // 2)
    assert parse_time_ms(moment.astimezone(zone)) == ms // 2 + 86_400_000


@pytest.mark.parametrize(
    "written",
    ["tomorrow", "", "2030-13-01", -1, TIME_MS_MAX + 1, 1.5, True, "1969-12-31T23:59:59Z"],
)
def test_what_is_no_time_is_refused_by_name(written: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^run_at: "):
        parse_time_ms(written, "run_at")


def test_a_datetime_without_a_zone_is_refused_rather_than_guessed() -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - that is the case
    with pytest.raises(InvalidInput, match=r"no time zone"):
        parse_time_ms(naive)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64MiB", 64 << 20),
        ("10GB", 10**10),
        ("512k", 512 << 10),
        ("7", 7),
        (7, 7),
        ("1.5 KiB", 1536),
    ],
)
def test_sizes_are_read_as_written(written: int | str, size: int) -> None:
    assert parse_size_bytes(written) == size


@pytest.mark.parametrize("written", ["", "5x", "-5", -5, 1.5, True, "GB"])
def test_what_is_no_size_is_refused_by_name(written: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^max_rss: "):
        parse_size_bytes(written, "max_rss")
