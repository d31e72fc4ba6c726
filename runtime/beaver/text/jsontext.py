"""JSON as text: checked, kept as it was sent, and in canonical form.

A payload is never changed: what a producer sent is what the worker reads, so integers
beyond 64 bits and the order of keys survive.  The one exception is white space between
tokens, where line breaks become spaces, so that a payload fits on a line of a snapshot.

The canonical form has sorted keys and no white space.  `msgspec` writes it; where an integer
is too large for that, the standard library does.  Which of them depends on the value alone,
so equal values have equal canonical forms.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import msgspec

from beaver.errors import InvalidInput
from beaver.text.lossless import refuse_changed
from beaver_model.bounds import PAYLOAD_BYTES_CEILING, PAYLOAD_DEPTH_MAX

_strict_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode
_sorted_encode_slow: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
_encode: Final = msgspec.json.Encoder().encode
_sorted_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder().decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_STRINGS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_LINE_BREAKS: Final = bytes.maketrans(b"\n\r", b"  ")
_LINE_FEED, _RETURN, _BRACKET, _BRACE = b"\n\r[{"
_FEW: Final = PAYLOAD_DEPTH_MAX
"""A text of at most this many brackets, or bytes, cannot be nested too deeply."""
_MARGIN: Final = 32
"""Levels of nesting reserved for programs that show a result."""


def kind_of(value: Any) -> str:
    """Returns what a value is, in the words of JSON."""
    if value is None:
        return "null"
    for kinds, name in ((bool, "a boolean"), ((int, float), "a number"), (str, "a string")):
        if isinstance(value, kinds):
            return f"{name} ({value!r:.40})"
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"


# -- from Python values -------------------------------------------------------------------


def encode(value: Any, bytes_max: int, what: str) -> bytes:
    """Returns the JSON text of a Python value, checked as `check` does.

    Raises:
        InvalidInput: The value is not JSON (a date, bytes, NaN, ...), or is out of bounds.
    """
    return encode_both(value, bytes_max, what)[0]


def encode_both(value: Any, bytes_max: int, what: str) -> tuple[bytes, bytes]:
    """Returns the JSON text of a Python value, as `encode`, and its canonical form.

    `msgspec` is quick and lenient: it writes NaN as null, a date as a string and a key of any
    kind.  So what it wrote is read again, and holds where that equals the value.
    """
    try:
        text = _encode(value)
        found = _decode(text)
        canonical_text = _sorted_encode(found) if found == value else None
    except Exception:  # noqa: BLE001 - also of a comparison with what is no JSON
        canonical_text = None
    if canonical_text is None:
        text, found = _encode_slow(value, what)
        canonical_text = canonical(found)
    if len(text) > bytes_max or (len(text) > _FEW and _brackets(text) > _FEW):
        _check_bounds(text, bytes_max, what)
    return text, canonical_text


def _encode_slow(value: Any, what: str) -> tuple[bytes, Any]:
    """Does it with the standard library, which keeps long integers; says what is wrong."""
    try:
        refuse_changed(value)
        text = _strict_encode(value).encode()
        return text, _decode(text)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from None
    except UnicodeEncodeError:
        raise InvalidInput(f"{what}: a string holds a lone surrogate") from None
    except TypeError as error:
        raise InvalidInput(
            f"{what}: {error}; only null, booleans, numbers, strings, lists and dicts are allowed"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"{what}: {error}") from None
    except RecursionError:
        _refuse_depth(what)


# -- from text ------------------------------------------------------------------------------


def check(text: bytes, bytes_max: int, what: str) -> bytes:
    """Returns a JSON text on one line, otherwise as it is.

    Raises:
        InvalidInput: It is not JSON, not UTF-8, too long or too deep, repeats a key of an
            object, or holds a number that no float can hold.
    """
    _check_bounds(text, bytes_max, what)
    _parse(text, what)
    return on_one_line(text)


def on_one_line(text: bytes) -> bytes:
    """Returns a JSON text with spaces for its line breaks, which stand between tokens only."""
    return text.translate(_LINE_BREAKS) if _has_line_break(text) else text


def is_small(text: bytes, bytes_max: int) -> bool:
    """True for a text that is surely within its bounds."""
    return len(text) <= bytes_max and (len(text) <= _FEW or _brackets(text) <= _FEW)


def check_line(text: bytes, bytes_max: int, job_id: str) -> None:
    """Checks the payload of a request that some client sent, in a fraction of a microsecond.

    Raises:
        InvalidInput: It is not JSON on one line, or out of bounds.
    """
    if len(text) > bytes_max or (len(text) > _FEW and _brackets(text) > _FEW):
        _check_bounds(text, bytes_max, f"job {job_id}: payload")
    try:
        _decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"job {job_id}: payload: not JSON: {error}") from None
    if _LINE_FEED in text or _RETURN in text:
        raise InvalidInput(f"job {job_id}: payload: it must stand on one line")


def fault_of_result(text: bytes) -> str:
    """Returns what keeps a result from being kept and shown; empty where it is JSON.

    Such a program wraps it into its own objects: a result as deep as a reader can go
    would be too deep there, so it is read inside of some brackets.
    """
    if len(text) > _FEW and _brackets(text) > _FEW:
        text = b"[" * _MARGIN + text + b"]" * _MARGIN
    try:
        _decode(text)
    except ValueError as error:
        return f"not JSON: {error}"
    except RecursionError:
        return "nested too deep"
    return ""


def shown(result: bytes, what: str = "result") -> msgspec.Raw:
    """Returns a result or payload for those who are shown it, also what is no JSON in an old log.

    Embedded as it is it would make the whole answer unreadable.
    """
    if fault := fault_of_result(result):
        return msgspec.Raw(_encode(f"({len(result)} bytes that are no {what}: {fault})"))
    return msgspec.Raw(result)


def parse_object(text: bytes) -> dict[str, Any]:
    """Returns a JSON object with exact integers.

    Raises:
        InvalidInput: It is no JSON object, or an object in it repeats a key.
    """
    value = _parse(text, "")
    if not isinstance(value, dict):
        raise InvalidInput(f"an object is expected, found {kind_of(value)}")
    return value


def member(text: bytes, key: str) -> bytes:
    """Returns the text of one member of a JSON object that `parse_object` has read."""
    return bytes(_decode_members(text)[key])


def _parse(text: bytes, what: str) -> Any:
    prefix = f"{what}: " if what else ""
    try:
        # The standard library alone tells a repeated key; msgspec alone is strict on syntax.
        _decode(text)
        return json.loads(text, object_pairs_hook=_unique, parse_float=_finite)
    except InvalidInput as error:
        raise InvalidInput(f"{prefix}{error}") from None
    except ValueError as error:
        raise InvalidInput(f"{prefix}{_syntax(text, error)}") from None
    except RecursionError:
        _refuse_depth(what)


def _syntax(text: bytes, error: ValueError) -> str:
    """Says what is wrong and where, from a second reading that forgives everything it can."""
    try:
        value = json.loads(
            text.decode("utf-8", "surrogateescape"),
            parse_constant=lambda name: _Wrong(f"{name} is not JSON"),
            parse_float=_float_or_wrong,
            parse_int=_int_or_wrong,
        )
    except json.JSONDecodeError as clearer:
        place = f"line {clearer.lineno} column {clearer.colno}" if b"\n" in text else ""
        return f"not JSON: {clearer.msg} at {place or f'character {clearer.pos + 1}'}"
    except RecursionError:
        return f"not JSON: {error}"
    path, wrong = _find_wrong(value) or ("", f"not JSON: {error}")
    return f"{path}: {wrong}" if path else wrong


class _Wrong:
    """Stands for a token that is no JSON."""

    def __init__(self, message: str) -> None:
        self.message = message


def _float_or_wrong(digits: str) -> float | _Wrong:
    number = float(digits)
    return number if math.isfinite(number) else _Wrong(f"the number {digits:.40} is out of range")


def _int_or_wrong(digits: str) -> int | _Wrong:
    try:
        return int(digits)
    except ValueError:
        return _Wrong(f"an integer of {len(digits)} digits is out of range")


def _find_wrong(value: Any, path: str = "") -> tuple[str, str] | None:
    """Returns the path to the first wrong value in what was read, and what it is."""
    if isinstance(value, _Wrong):
        return path, value.message
    if isinstance(value, str):
        return (path, "not UTF-8, or half a surrogate pair") if _SURROGATE.search(value) else None
    members: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        members = ((f"{path}.{key}" if path else key, item) for key, item in value.items())
        broken = next((key for key in value if _SURROGATE.search(key)), None)
        if broken is not None:
            return path, "a key is not UTF-8, or holds half a surrogate pair"
    elif isinstance(value, list):
        members = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    for member_path, item in members:
        found = _find_wrong(item, member_path)
        if found is not None:
            return found
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInput(f"{key!r:.80}: repeated key")
            seen.add(key)
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidInput(f"the number {digits:.40} is out of range")
    return number


# -- bounds and canonical form ----------------------------------------------------------------


def _check_bounds(text: bytes, bytes_max: int, what: str) -> None:
    if len(text) > bytes_max:
        message = f"{what}: at most {bytes_max} bytes are allowed, found {len(text)}"
        if what.endswith("payload"):
            from beaver.limits import hint

            fixed = bytes_max >= PAYLOAD_BYTES_CEILING
            message += f"; {hint('payload_ceiling' if fixed else 'payload')}"
        raise InvalidInput(message)
    if depth(text) > PAYLOAD_DEPTH_MAX:
        _refuse_depth(what)


def _refuse_depth(what: str) -> NoReturn:
    prefix = f"{what}: " if what else ""
    raise InvalidInput(f"{prefix}nested deeper than {PAYLOAD_DEPTH_MAX}")


def _brackets(text: bytes) -> int:
    return text.count(_BRACKET) + text.count(_BRACE)


def _has_line_break(text: bytes) -> bool:
    # A byte is looked for several times faster than a sequence of one byte.
    return _LINE_FEED in text or _RETURN in text


def depth(text: bytes) -> int:
    """Returns how deep arrays and objects are nested in a JSON text."""
    if _brackets(text) <= _FEW:
        # Few enough brackets: the exact depth does not matter, it is within the bound.
        return 0
    deepest = level = 0
    for bracket in _STRINGS.sub(b"", text).translate(None, _NOT_BRACKETS):
        if bracket in b"[{":
            level += 1
            deepest = max(deepest, level)
        else:
            level -= 1
    return deepest


def canonical(value: Any) -> bytes:
    """Returns the canonical JSON text of a value that came out of JSON."""
    try:
        return _sorted_encode(value)
    except OverflowError:
        return _sorted_encode_slow(value).encode()


def canonical_of(text: bytes) -> bytes:
    """Returns the canonical form of a JSON text that was checked."""
    return canonical(_decode(text))
