"""Python values that JSON cannot carry unchanged: found, and named by their place.

`json` and `msgspec` write `{1: 2}` as `{"1":2}`, and `msgspec` writes NaN as null: whoever reads
it gets something else than was sent.  So both are refused, in payloads and in results.
"""

from __future__ import annotations

import math
from typing import Any

from beaver.errors import InvalidInput


def refuse_changed(value: Any, path: str = "") -> None:
    """Walks through a value that was written as JSON.

    Args:
        value: Of dicts, lists, tuples and plain values; what else it holds is passed over.
        path: Where it stands, for the message.

    Raises:
        InvalidInput: A key of a dict is no text, or a number is NaN or infinite.
        RecursionError: It is nested without end.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{path}{': ' if path else ''}{value} is no JSON number")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(
                    f"{path}{': ' if path else ''}the key {key!r:.60} is no text, and JSON would "
                    f"turn it into one; write {{str(k): v}}, or a list of pairs"
                )
            refuse_changed(item, f"{path}.{key:.60}" if path else f"{key:.60}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            refuse_changed(item, f"{path}[{index}]")
