"""Error texts: what the log keeps of an exception."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from beaver.text.foreign import cut

_HERE: Final = str(Path(__file__).parent)


def describe(error: BaseException) -> str:
    """Returns an exception as text: type and message, then the traceback of the job's code."""
    try:
        headline = "".join(traceback.format_exception_only(error)).strip()
        frames = own_frames(error.__traceback__)
        if frames is None and error.__cause__ is None and error.__context__ is None:
            return cut(headline)
        lines = traceback.format_exception(type(error), error, frames)
        return cut(f"{headline}\n\n{''.join(lines)}".rstrip())
    except Exception:  # noqa: BLE001 -- the exception's own code may raise anything
        return f"{type(error).__name__} (its text cannot be shown)"


def headline(error: BaseException) -> str:
    """Returns type and message of an exception."""
    return cut("".join(traceback.format_exception_only(error)).strip())


def own_frames(frames: TracebackType | None) -> TracebackType | None:
    """Returns a traceback from the first frame that is not the worker's own."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    return frames
