"""Text that others wrote: what of it may be kept, and how it is shown.

Ids, names, payloads, errors and the output of jobs come from producers and from user code.
Where they are shown to people (tables, logs, messages), nothing in them may steer a terminal,
reorder a line, hide, or begin a line of its own.  So whatever cannot be seen is shown as its
escape: control characters, bidirectional and zero-width ones, separators of lines and
paragraphs, tags, and lone surrogates.  JSON for programs is not touched: it has escapes of its
own.

What may not live here: how an exception becomes a text (`workers.failures`).
"""

from __future__ import annotations

from typing import Final

from beaver_model.bounds import ERROR_BYTES_MAX

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that cannot be seen, spaces excepted."""

_NOTE_BYTES: Final = 48
"""Room for the line that says how much was left out."""
_HEAD_SHARE: Final = 4
"""A quarter of a cut text is its head: the message.  The rest is the traceback's end."""

_TRACEBACK: Final = "\n\nTraceback (most recent call last):\n"
"""Where the traceback begins in the error of an attempt, as the log keeps it."""


def counted(count: int, noun: str) -> str:
    """Returns `1 job`, or `2 jobs`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"


def printable(text: str, keep: str = "\n\t") -> str:
    """Returns text in which everything that cannot be seen is escaped, as in Python.

    Args:
        text: Untrusted text.
        keep: Characters that stay as they are.
    """
    if text.isprintable():
        return text
    unseen = {c for c in set(text) if not c.isprintable() and c not in keep}
    return text.translate({ord(c): _escaped(c) for c in unseen})


def one_line(text: str) -> str:
    """Returns text as a part of one line: line breaks and tabs are escaped too."""
    return printable(text, "")


def _escaped(character: str) -> str:
    from unicodedata import category  # only here: rare, and it is large

    if category(character) not in _UNSEEN:
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def cut(text: str, limit: int = ERROR_BYTES_MAX) -> str:
    """Returns a text of at most `limit` UTF-8 bytes: the whole, or its head and its tail.

    The number of omitted characters stands in between.  The work is bounded for any length of text.
    """
    if len(text) > limit:  # in any encoding: not all of it has to be encoded
        kept = limit - _NOTE_BYTES
        head, tail = kept // _HEAD_SHARE, kept - kept // _HEAD_SHARE
        note = f"\n... {counted(len(text) - kept, 'character')} left out ...\n"
        return f"{_head(text[:head], head)}{note}{_tail(text[-tail:], tail)}"
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    room = limit - _NOTE_BYTES
    head, tail = room // _HEAD_SHARE, room - room // _HEAD_SHARE
    note = f"\n... {counted(len(data) - room, 'byte')} left out ...\n"
    text = data.decode()
    return f"{_head(text, head)}{note}{_tail(text, tail)}"


def _head(text: str, limit: int) -> str:
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def _tail(text: str, limit: int) -> str:
    return text.encode("utf-8", "backslashreplace")[-limit:].decode("utf-8", "ignore")


def split_error(error: str) -> tuple[str, str]:
    """Returns the message of an error and its traceback (empty where it has none).

    The log keeps both as one text: the message, an empty line, the traceback.
    """
    message, found, frames = error.partition(_TRACEBACK)
    return (message, f"{_TRACEBACK.lstrip()}{frames}") if found else (error, "")
