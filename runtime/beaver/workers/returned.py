"""What a job returned, as JSON: written whole, or refused with the place of what is wrong.

Beside plain data, `msgspec` writes dataclasses, attrs, its own structs, dates and the like;
models of pydantic write themselves.  `jobs.decoder_of` reads each back by the annotation.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from beaver.errors import InvalidInput
from beaver.text.lossless import refuse_changed

_HINTS: Final = {
    "generator": "; return a list, or enqueue a child for each item",
    "async_generator": "; return a list, or enqueue a child for each item",
    "coroutine": "; it was never awaited: declare the job with `async def`, or await it",
}
_decode: Final = msgspec.json.Decoder().decode


def encode_result(value: Any) -> bytes:
    """Returns the JSON of a result.

    Raises:
        InvalidInput: JSON cannot carry it, or not without changing it (NaN, a key that is no
            text); the message says where and why.
    """
    if value is None:
        return b"null"
    if type(value) is msgspec.Raw:
        return bytes(value)
    try:
        text = _encode(value)
        # Quicker than a walk, and true for whatever reading gives back: else it is looked at.
        if type(value) is not str and _decode(text) != value:
            refuse_changed(msgspec.to_builtins(value, enc_hook=_model))
    except InvalidInput as error:
        raise InvalidInput(f"the result cannot be written as JSON: {error}") from None
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        hint = _HINTS.get(type(value).__name__, "")
        raise InvalidInput(
            f"the result cannot be written as JSON: {type(error).__name__}: {error}{hint}"
        ) from None
    return text


def _model(value: Any) -> Any:
    """Returns what a model of pydantic, or whatever dumps itself as one, consists of."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"an object of type {type(value).__name__} is no JSON")
    return dump(mode="json", by_alias=True)


_encode: Final = msgspec.json.Encoder(enc_hook=_model).encode
