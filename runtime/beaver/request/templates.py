"""Templates: what the jobs of one task and one set of options have in common, made once.

A request is its template with an id, a payload and a digest.  The digest says whether two
requests with one id ask for the same.  It is taken over what was sent, in canonical form:
options that were left open stay open in it, keys are in order, and white space is gone.  So a
resent `delay=5` is the same request, a day later too.

What may not live here: reading what a producer said (`requests`), connections, the log.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from beaver.request.options import check_options
from beaver.structs.messages import Backoff, Options, Request
from beaver.system.ids import draw_id
from beaver.text import jsontext
from beaver_model.bounds import DIGEST_BYTES, PAYLOAD_BYTES_CEILING
from beaver_model.hashing import blake2b

_MEMO_MAX: Final = 10_000
_encode_options: Final = msgspec.msgpack.Encoder().encode


class Template:
    """Makes requests that differ in id and payload alone.  Everything in it was checked."""

    __slots__ = ("_delay_ms", "_head", "_job_id", "_options", "_run_at_ms", "_tags")

    def __init__(
        self,
        fields: tuple[Any, ...],
        job_id: str | None = None,
        run_at_ms: int | None = None,
        delay_ms: int | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Checks the options and makes what the requests have in common.

        Args:
            fields: Those of `Options`, as they were sent.
            job_id: Id of every job; drawn for each where there is none.
            run_at_ms: Not before this time.
            delay_ms: Least time between enqueueing and start.
            tags: Checked tags.

        Raises:
            InvalidInput: An option is out of its bounds.
        """
        self._options, head = options_and_head(fields)
        rest = b""
        if run_at_ms or delay_ms or tags:
            given = {"delay_ms": delay_ms, "run_at_ms": run_at_ms, "tags": tags}
            rest = jsontext.canonical({name: value for name, value in given.items() if value})
        self._head = head.copy()
        self._head.update(rest + b"\n")
        self._job_id, self._tags = job_id, tags
        self._run_at_ms, self._delay_ms = run_at_ms or 0, delay_ms or 0

    @property
    def options(self) -> bytes:
        """MessagePack of `Options`, as they travel."""
        return self._options

    def travel_with(self, options: bytes) -> None:
        """Sends other options than those that the digest is of."""
        self._options = options

    def request(self, payload: bytes, canonical: bytes) -> Request:
        """Returns the request for a payload, given as checked JSON and in canonical form."""
        # BLAKE2b-96 over three lines: options, the rest but the id, payload; each canonical.
        digest = self._head.copy()
        digest.update(canonical)
        return Request(
            self._job_id or draw_id(),
            self._options,
            payload,
            digest.digest(),
            self._run_at_ms,
            self._delay_ms,
            self._tags,
        )

    def fill(self, payload: Any, payload_bytes_max: int = PAYLOAD_BYTES_CEILING) -> Request:
        """Returns the request for a Python value.

        Raises:
            InvalidInput: It is no JSON, or too large.
        """
        return self.request(*jsontext.encode_both(payload, payload_bytes_max, "payload"))


_heads: dict[tuple[Any, ...], tuple[bytes, blake2b]] = {}


def options_and_head(fields: tuple[Any, ...]) -> tuple[bytes, blake2b]:
    """Returns the bytes of `Options(*fields)`, and their canonical form hashed; both by a memo.

    The types stand in the key, since `True == 1 == 1.0` would find a checked entry.
    """
    key = (fields, type(fields[2]), type(fields[3]), type(fields[4]))
    try:
        known = _heads.get(key)
    except TypeError:
        known = None  # A list or an object somewhere: refused just below.
    if known is None:
        options = Options(*fields)
        check_options(options)
        if len(_heads) >= _MEMO_MAX:
            _heads.clear()
        head = blake2b(_canonical_options(options) + b"\n", digest_size=DIGEST_BYTES)
        known = _heads[key] = (_encode_options(options), head)
    return known


def _canonical_options(options: Options) -> bytes:
    """Returns the options that were given, by name: what is added later changes no digest."""
    given = {
        name: msgspec.structs.asdict(value) if isinstance(value, Backoff) else value
        for name, value in msgspec.structs.asdict(options).items()
        if value is not None
    }
    return jsontext.canonical(given)
