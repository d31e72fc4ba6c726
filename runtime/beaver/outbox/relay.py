"""The relay: hands the rows of an outbox over to a server, each once, in their order.

A job has its id in its row.  So what was sent before a relay died, and was not deleted yet, is
sent again and found to be there: the store remembers the ids of unfinished jobs, and of the last
million finished ones by default.

What is wrong with one job (its content, its task, its queue) is no reason to hold up the others:
such a row is set aside with what the server says.  What is wrong with the server or the database
is waited out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from beaver.client import calls
from beaver.client.choosing import connection_to
from beaver.client.connection import Connection
from beaver.errors import AccessDenied, BeaverError, InvalidInput, StoreUnavailable
from beaver.outbox.databases import Database, Lag, Row, open_database
from beaver.outbox.rows import TABLE
from beaver.request.requests import request_bytes, request_from_json
from beaver.structs.messages import Request
from beaver_model.bounds import PAYLOAD_BYTES_CEILING

log: Final = logging.getLogger("beaver.outbox")

ROWS_MAX: Final = 500
"""Rows that are claimed at once."""
BATCH_BYTES: Final = 4 << 20
"""Bytes of one commit, of which one larger job is let through."""
INTERVAL_S: Final = 0.5
"""Time from one look to the next, where nothing waits."""
PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Time from one try to the next, where server or database cannot be used; the last one stays."""


class Step(NamedTuple):
    """What one step has come to."""

    sent: int
    refused: int


class Relay:
    """Hands over what is in one outbox."""

    def __init__(
        self,
        database: str | Database,
        store: str | Connection,
        *,
        table: str = TABLE,
        interval_s: float = INTERVAL_S,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Makes a relay; nothing is opened before the first step.

        Args:
            database: URL of the outbox's database: `sqlite:///app.db`, `postgresql://…`.
            store: Where jobs go: a data directory, a URL, or `app.connection`.
            table: Name of the outbox's table.
            interval_s: Seconds from one look to the next, where nothing waits.
            token: For a server by URL, as that of `Beaver`.
            ca_file: Likewise.

        Raises:
            InvalidInput: One of them is wrong.
        """
        self.database = open_database(database, table) if isinstance(database, str) else database
        network = {"token": token, "ca_file": ca_file}
        self._store = connection_to(store, network) if isinstance(store, str) else store
        self._interval_s = interval_s
        self.sent = self.refused = 0
        """Rows handed over and set aside since it was made."""

    def step(self) -> Step:
        """Hands over the oldest rows; those that were sent are gone from the table on return.

        Raises:
            StoreUnavailable: Server or database cannot be used now; nothing is lost.
        """
        rows = self.database.claim(ROWS_MAX)
        if not rows:
            return Step(0, 0)
        batch = _Batch(self._store)
        failure: BeaverError | None = None
        try:
            batch.hand_over(rows)
        except StoreUnavailable as error:
            failure = error
        except BaseException:
            self.database.release()
            raise
        if batch.sent or batch.refused:
            self.database.settle(batch.sent, batch.refused)
        else:
            self.database.release()
        self.sent += len(batch.sent)
        self.refused += len(batch.refused)
        if failure is not None:
            raise failure
        return Step(len(batch.sent), len(batch.refused))

    def drain(self) -> Step:
        """Hands over all that waits now, and returns; another relay's work is left to it.

        Raises:
            StoreUnavailable: Server or database cannot be used now; nothing is lost.
        """
        sent = refused = 0
        while any(step := self.step()):
            sent, refused = sent + step.sent, refused + step.refused
        return Step(sent, refused)

    def run(self, stop: threading.Event, told: Callable[[Lag | None], None] | None = None) -> None:
        """Hands over what comes, until `stop` is set; outages are waited out, and logged once.

        Args:
            stop: Ends it after the current step.
            told: Gets how far it is behind, after each step; `None` where that is not known.
        """
        failures = 0
        while not stop.is_set():
            try:
                step = self.step()
                if told is not None:
                    told(self.database.lag())
            except StoreUnavailable as error:
                if not failures:
                    log.warning("nothing is handed over for now: %s", error)
                if told is not None:
                    told(None)
                stop.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
                failures += 1
                continue
            if failures:
                log.warning("it is handed over again")
            failures = 0
            if not any(step):
                stop.wait(self._interval_s)

    def lag(self) -> Lag:
        """Returns how many rows wait and for how long, and how many were set aside.

        Raises:
            StoreUnavailable: The database cannot be used now.
        """
        return self.database.lag()

    def close(self) -> None:
        """Ends the connections."""
        self.database.close()
        self._store.close()


class _Batch:
    """Rows on their way."""

    def __init__(self, store: Connection) -> None:
        self._store = store
        self.sent: list[int] = []
        self.refused: list[tuple[int, str]] = []

    def hand_over(self, rows: Sequence[Row]) -> None:
        """Sends rows, in their order.

        Raises:
            StoreUnavailable: The server is not there; what was sent by then is noted.
        """
        batch: list[tuple[Row, Request]] = []
        size = 0
        for row in rows:
            try:
                request = request_from_json(
                    row.job.encode("utf-8", "surrogatepass"),
                    payload_bytes_max=PAYLOAD_BYTES_CEILING,
                    need_id=True,
                )
            except InvalidInput as error:
                self._refuse(row, error)
                continue
            if request.id != row.id:
                wrong = f"id: the row is {row.id!r:.300}, its job {request.id!r:.300}"
                self._refuse(row, InvalidInput(wrong))
                continue
            added = request_bytes(request)
            if batch and size + added > BATCH_BYTES:
                self._send(batch)
                batch, size = [], 0
            batch.append((row, request))
            size += added
        if batch:
            self._send(batch)

    def _send(self, batch: list[tuple[Row, Request]]) -> None:
        """Sends with one commit; where that is refused, one by one, so that the others come in."""
        try:
            self._store.call(calls.enqueue([request for _, request in batch]))
        except (InvalidInput, AccessDenied) as error:
            if isinstance(error, AccessDenied) and not _is_about_jobs(error):
                raise  # It is the token, whatever is sent.
            if len(batch) > 1:
                for one in batch:
                    self._send([one])
                return
            self._refuse(batch[0][0], error)
            return
        self.sent += [row.seq for row, _ in batch]

    def _refuse(self, row: Row, error: BeaverError) -> None:
        log.error("job %s is set aside: %s", row.id, error)
        self.refused.append((row.seq, f"{type(error).__name__}: {error}"))


def _is_about_jobs(error: AccessDenied) -> bool:
    """True where a token may enqueue, and not this job."""
    return "index" in error.facts or "job" in error.facts
