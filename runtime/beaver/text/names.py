"""What an id is, and a name of a task, queue or tag: checked wherever one is given.

What may not live here: anything that takes long to load; every client and command loads this.
"""

from __future__ import annotations

import re
from typing import Any, Final

from beaver.errors import InvalidInput
from beaver_model.bounds import ID_BYTES_MAX, NAME_BYTES_MAX

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def check_id(job_id: Any, what: str = "id") -> str:
    """Returns `job_id` if it is one: 1 to 255 bytes of UTF-8 without control characters.

    Raises:
        InvalidInput: It is not.
    """
    return _check_text(job_id, what, ID_BYTES_MAX)


def check_name(name: Any, what: str) -> str:
    """Returns the name of a task, queue or tag if it is one: 1 to 200 bytes, as an id.

    Raises:
        InvalidInput: It is not.
    """
    return _check_text(name, what, NAME_BYTES_MAX)


def _check_text(text: Any, what: str, bytes_max: int) -> str:
    if not isinstance(text, str):
        from beaver.text.jsontext import kind_of

        raise InvalidInput(f"{what}: a string is expected, found {kind_of(text)}")
    # Nearly every text is short and printable, and a character has at most four bytes.
    if not (text.isprintable() and 0 < len(text) * 4 <= bytes_max):
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"{what}: {text!r:.80} holds a lone surrogate") from None
        if not 0 < size <= bytes_max:
            raise InvalidInput(f"{what}: 1 to {bytes_max} bytes are allowed, found {size}")
        if _CONTROL.search(text):
            raise InvalidInput(f"{what}: {text!r:.80} holds a control character")
    return text
