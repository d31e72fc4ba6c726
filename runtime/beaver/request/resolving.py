"""Resolving: turns any request into a job of the model with every option set.

What may not live here: reading or making requests (`requests`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from beaver.errors import InvalidInput
from beaver.request.options import BACKOFF_DEFAULT, check_options, check_tags
from beaver.structs.messages import Options, Request
from beaver.text import jsontext
from beaver.text.names import check_id
from beaver_model.bounds import (
    ATTEMPTS_DEFAULT,
    DIGEST_BYTES,
    ID_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_DEFAULT,
    TIME_MS_MAX,
    TIMEOUT_MS_DEFAULT,
)
from beaver_model.commands import NewJob
from beaver_model.rows import Origin, Spec, encode_spec

_MEMO_MAX: Final = 10_000
_MEMOS_MAX: Final = 64
"""Askers whose options are remembered at once."""
OPTIONS_BYTES_MAX: Final = 1_024
"""More bytes than any options take.  Longer ones hold unknown fields, and are not cached."""
_SHORT: Final = ID_BYTES_MAX // 4
"""A printable id of up to this many characters is valid whatever its characters are."""
_decode_options: Final = msgspec.msgpack.Decoder(Options).decode


class Resolver:
    """Fills in options: the request's, else the task's, else the server's, else the defaults."""

    def __init__(
        self,
        *,
        timeout_ms: int = TIMEOUT_MS_DEFAULT,
        max_attempts: int = ATTEMPTS_DEFAULT,
        tasks: Mapping[str, Options] | None = None,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> None:
        self.use(timeout_ms, max_attempts, tasks or {}, payload_bytes_max)

    def use(
        self,
        timeout_ms: int,
        max_attempts: int,
        tasks: Mapping[str, Options],
        payload_bytes_max: int,
    ) -> None:
        """Takes other settings and tasks, for the requests to come."""
        self._server = Options("server", None, None, timeout_ms, max_attempts)
        check_options(self._server)
        self._tasks = dict(tasks)
        self._memo: dict[int, dict[bytes, bytes]] = {origin: {} for origin in Origin}
        self._memos: dict[str, dict[bytes, bytes]] = {}
        self.payload_bytes_max = payload_bytes_max

    def spec(self, options: bytes, origin: int = Origin.LOCAL, by: str = "") -> bytes:
        """Returns the bytes of the whole `Spec` for a request's options, and who asks.

        Raises:
            InvalidInput: The bytes are no options, or a value is out of its bounds.
        """
        memo = self._memo_of(by) if by else self._memo[origin]
        spec = memo.get(options)
        if spec is None:
            if len(options) > OPTIONS_BYTES_MAX:
                raise InvalidInput(f"the options of a request have {len(options)} bytes")
            if len(memo) >= _MEMO_MAX:
                memo.clear()
            spec = memo[options] = encode_spec(self._resolve(options, origin, by))
        return spec

    def _memo_of(self, by: str) -> dict[bytes, bytes]:
        """Returns the specs of those who come over HTTP, apart for each."""
        memo = self._memos.get(by)
        if memo is None:
            if len(self._memos) >= _MEMOS_MAX:
                self._memos.clear()
            memo = self._memos[by] = {}
        return memo

    def job(
        self, request: Request, now_ms: int, origin: int = Origin.LOCAL, by: str = ""
    ) -> NewJob:
        """Returns the model's job for a request, which may come from any client.

        A delay counts from `now_ms`; `by` is who asks over HTTP.

        Raises:
            InvalidInput: A field is out of its bounds, or the payload is not JSON on one line.
        """
        job_id, payload = request.id, request.payload
        if not (job_id.isprintable() and 0 < len(job_id) <= _SHORT):
            check_id(job_id)
        if len(request.digest) != DIGEST_BYTES:
            raise InvalidInput(f"job {job_id}: a digest has {DIGEST_BYTES} bytes")
        jsontext.check_line(payload, self.payload_bytes_max, job_id)
        run_at_ms = request.run_at_ms
        if request.delay_ms:
            run_at_ms = now_ms + request.delay_ms
        if not 0 <= run_at_ms <= TIME_MS_MAX or request.delay_ms < 0:
            raise InvalidInput(f"job {job_id}: its time lies outside the years 1970 to 9999")
        if request.tags:
            check_tags(request.tags)
        memo = self._memo_of(by) if by else self._memo[origin]
        spec = memo.get(request.options) or self.spec(request.options, origin, by)
        return NewJob(job_id, spec, payload, request.digest, run_at_ms, request.tags)

    def _resolve(self, raw: bytes, origin: int, by: str) -> Spec:
        try:
            asked = _decode_options(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the options of a request cannot be read: {error}") from None
        check_options(asked)
        layers = (asked, self._tasks.get(asked.task, asked), self._server)

        def first(name: str, default: Any) -> Any:
            values = (getattr(layer, name) for layer in layers)
            return next((value for value in values if value is not None), default)

        backoff = first("backoff", BACKOFF_DEFAULT)
        return Spec(
            task=asked.task,
            queue=first("queue", "default"),
            priority=first("priority", PRIORITY_DEFAULT),
            timeout_ms=first("timeout_ms", TIMEOUT_MS_DEFAULT),
            max_attempts=first("max_attempts", ATTEMPTS_DEFAULT),
            backoff_kind=backoff.kind,
            backoff_base_ms=backoff.base_ms,
            backoff_max_ms=backoff.max_ms,
            backoff_jitter=backoff.jitter,
            origin=origin,
            by=by,
        )
