"""Reading and writing durations, times and sizes, as people write them.

Durations: `500ms`, `30s`, `5m`, `2h`, `1d`, also joined (`1h30m`); a bare number means
seconds.  Times: ISO 8601, or ms since the epoch; a time without an offset is UTC, so that
one file means the same on every machine.  Sizes: `64MiB`, `10GB`; a bare number means bytes.

What may not live here: a clock.  Everything is a pure function of its arguments.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from beaver.errors import InvalidInput
from beaver_model.bounds import TIME_MS_MAX

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_SIZE: Final = re.compile(r"([0-9]{1,30}(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "t": 1 << 40,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
_AMOUNT_MAX: Final = 1 << 62
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def parse_duration_ms(value: Any, what: str = "the duration") -> int:
    """Returns a duration in ms.

    Args:
        value: A string as above, a number of seconds, or a `timedelta`.
        what: Names the value in an error.

    Raises:
        InvalidInput: It is none of these, is negative, or is absurdly long.
    """
    total_ms: float
    if isinstance(value, timedelta):
        total_ms = value / _MILLISECOND
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        total_ms = value * 1_000
    elif isinstance(value, str):
        total_ms = _text_ms(value.strip(), what)
    else:
        raise InvalidInput(f"{what}: a duration is expected, found {_kind(value)}")
    if not 0 <= total_ms < _AMOUNT_MAX:  # NaN neither
        raise InvalidInput(
            f"{what}: {value!r} is out of range; a duration is from 0 to {_AMOUNT_MAX // 1000} s"
        )
    return round(total_ms)


def _text_ms(text: str, what: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text) * 1_000
    total_ms, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            break
        total_ms += float(part[1]) * _UNITS_MS[part[2]]
        end = part.end()
    if not text or end != len(text):
        raise InvalidInput(
            f"{what}: {text!r} is no duration; write 500ms, 30s, 5m, 2h or 1d, "
            "or a number of seconds"
        )
    return total_ms


def parse_time_ms(value: Any, what: str = "the time") -> int:
    """Returns a time in ms since the epoch.

    Args:
        value: ISO 8601 text, ms since the epoch (as a number or as digits), or a
            `datetime` with a time zone.
        what: Names the value in an error.

    Raises:
        InvalidInput: It is none of these, or lies before 1970 or after the year 9999.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit() and len(text) <= 20:
            time_ms = int(text)
        else:
            time_ms = _moment_ms(_from_iso(text, what))
    elif isinstance(value, int) and not isinstance(value, bool):
        time_ms = value
    elif isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidInput(f"{what}: {value} has no time zone; pass datetime.now(UTC) or alike")
        time_ms = _moment_ms(value)
    else:
        raise InvalidInput(
            f"{what}: ISO 8601 or ms since the epoch is expected, found {_kind(value)}"
        )
    if not 0 <= time_ms <= TIME_MS_MAX:
        raise InvalidInput(f"{what}: {value} lies outside the years 1970 to 9999")
    return time_ms


def _from_iso(text: str, what: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{what}: {text!r} is no time; write 2030-01-31T12:00:00Z or ms since the epoch"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _moment_ms(moment: datetime) -> int:
    # In whole numbers: a float of seconds would lose a millisecond here and there.
    return (moment - _EPOCH) // _MILLISECOND


def parse_size_bytes(value: Any, what: str = "the size") -> int:
    """Returns a size in bytes from a number or a string such as `64MiB`, `10GB` or `512k`.

    `KB`, `MB`, `GB` and `TB` are powers of 1,000; `K`, `KiB` and so on are powers of 1,024.

    Raises:
        InvalidInput: It is neither, or is negative.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        unit = _SIZE_UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise InvalidInput(
                f"{what}: {value!r} is no size; write 64MiB, 10GB or a number of bytes"
            )
        size = round(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    else:
        raise InvalidInput(f"{what}: a size is expected, found {_kind(value)}")
    if not 0 <= size < _AMOUNT_MAX:
        raise InvalidInput(f"{what}: {value!r} is out of range; a size is 0 to {_AMOUNT_MAX} bytes")
    return size


def format_duration(duration_ms: float) -> str:
    """Returns a duration for people: its two largest units (`2h 5m`, `1.5s`, `40ms`)."""
    duration_ms = max(0, round(duration_ms))
    if duration_ms < 1_000:
        return f"{duration_ms}ms"
    if duration_ms < 60_000:
        return f"{duration_ms / 1_000:.3f}".rstrip("0").rstrip(".") + "s"
    parts: list[str] = []
    rest = duration_ms // 1_000 * 1_000
    for unit in ("d", "h", "m", "s"):
        count, remainder = divmod(rest, _UNITS_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
            rest = remainder
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)


def duration_text(duration_ms: int) -> str:
    """Returns a duration exactly, in the form that `parse_duration_ms` reads (`90s`, `1d`)."""
    for unit in ("d", "h", "m", "s"):
        if duration_ms and duration_ms % _UNITS_MS[unit] == 0:
            return f"{duration_ms // _UNITS_MS[unit]}{unit}"
    return f"{duration_ms}ms" if duration_ms else "0s"


def size_text(size: int) -> str:
    """Returns a size exactly, in the form that `parse_size_bytes` reads (`64MiB`, `1500`)."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB"):
        factor = _SIZE_UNITS[unit.lower()]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_size(count: int) -> str:
    """Returns a size for people: `1.5 GiB`."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_time(time_ms: int) -> str:
    """Returns a time as ISO 8601 in UTC with ms."""
    moment = _EPOCH + timedelta(milliseconds=min(time_ms, TIME_MS_MAX))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"
