"""The one job of a command line: from its arguments to a request."""

from __future__ import annotations

from typing import Any, Final

from beaver.errors import InvalidInput
from beaver.structs.messages import Request

_QUOTED_MAX: Final = 60


def single_job(task: str, payload: str | None, given: dict[str, Any], bytes_max: int) -> Request:
    """Returns the request for a job that the command line describes, all checked."""
    from beaver.request.options import backoff_from_python
    from beaver.request.requests import build_request
    from beaver.text import jsontext
    from beaver.text.durations import parse_duration_ms, parse_time_ms

    text = b"null"
    if payload is not None:
        # The very bytes of the argument, also where they are no UTF-8: they are checked.
        raw = payload.strip().encode("utf-8", "surrogateescape")
        try:
            text = jsontext.check(raw, bytes_max, "payload")
        except InvalidInput as error:
            raise InvalidInput(f"{error}{_how_to_write(payload)}") from None
    run_at, delay, timeout = given.get("run_at"), given.get("delay"), given.get("timeout")
    backoff = given.get("backoff")
    return build_request(
        task,
        text,
        job_id=given.get("id"),
        queue=given.get("queue"),
        priority=given.get("priority"),
        run_at_ms=None if run_at is None else parse_time_ms(run_at, "--at"),
        delay_ms=None if delay is None else parse_duration_ms(delay, "--in"),
        timeout_ms=None if timeout is None else parse_duration_ms(timeout, "--timeout"),
        max_attempts=given.get("max_attempts"),
        backoff=None if backoff is None else backoff_from_python(backoff),
        tags=given["tags"],
    )


def _how_to_write(payload: str) -> str:
    """Returns how a shell is given the JSON that seems to be meant; nothing for other errors."""
    import json
    import shlex

    try:
        json.loads(payload)
    except ValueError:
        meant = payload.strip()
    else:
        return ""
    if meant[:1] in ("{", "["):
        return (
            "\nNames and texts stand in double quotes, the whole in single ones: '{\"order\": 7}'."
        )
    if not meant or not meant.isprintable() or len(meant) > _QUOTED_MAX:
        return ""
    return f"\nA text is JSON with quotes of its own: {shlex.quote(json.dumps(meant))}."


def backoff_value(text: str | None) -> Any:
    """Returns a backoff's JSON object, or the duration as it was written."""
    if text is None or not text.lstrip().startswith("{"):
        return text
    from beaver.text.jsontext import parse_object

    try:
        return parse_object(text.encode("utf-8", "surrogateescape"))
    except InvalidInput as error:
        raise InvalidInput(f"--backoff: {error}") from None
