"""The parts of a keeper over their ports, so that the simulator drives the same ones.

They are those of a server without the ones that run jobs: no pool, no controller, no BOOT.  Jobs
that were in flight when the last server ended stay so for the next one.  The history is left to
the next server as well; questions about the past read the files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from beaver.config.layers import Config
from beaver.engine.engine import Engine
from beaver.errors import NoServer
from beaver.inspect import queries
from beaver.journal.wal.log import SERVER_BYTES, Wal
from beaver.journal.wal.opening import OwnedWal
from beaver.ports import Clock, Disk, Helper
from beaver.request.operations import Nothing
from beaver.server.answers import Asker, PastTeller, Respond, Watch
from beaver.server.housekeeping import Housekeeping
from beaver.server.metrics import Metrics
from beaver.server.results import Results
from beaver.server.service import Service
from beaver.snapshot.files import FileSnapshots
from beaver.store.holding import Holding
from beaver.store.rebuild import recover
from beaver.store.shipped import ships
from beaver.structs.views import StatusView
from beaver.system.kinship import store_mark
from beaver_model import State
from beaver_model.bounds import ADVANCE_MAX
from beaver_model.events import AnyEvent
from beaver_model.rows import Origin


class KeeperService(Service):
    """A server's operations, where no worker runs."""

    KIND = "keeper"
    on_leave: Callable[[], None]
    """Called when somebody who needs the lock has asked for it."""
    pid = 0
    asked = 0
    """Requests that came in, hellos included."""

    def handle(
        self, op: str, body: Any, respond: Respond, origin: Origin = Origin.LOCAL, by: str = ""
    ) -> Watch | None:
        """See `Service`."""
        self.asked += 1
        if op != "enqueue":
            # Jobs that have become due are reported as ready; no row changes.
            state = self._engine.state
            while state.advance(self._engine.now_ms()) == ADVANCE_MAX:
                pass
        return super().handle(op, body, respond, origin, by)

    def hello(self, store: str) -> list[Any]:
        """See `Service`."""
        self.asked += 1
        return super().hello(store)

    def leave(self, asked: Nothing, respond: Respond) -> None:
        """Asks the keeper to end."""
        respond([])
        self.on_leave()

    def reload(self, asked: Nothing, asker: Asker) -> Watch:
        """Refuses: no worker runs."""
        raise NoServer("no server runs, so there is nothing to reload")

    def _wait_for_end(self, watch: Watch, job: str, timeout_ms: int) -> None:
        watch.answer(NoServer(f"no server runs, so job {job} cannot end"))


class _Segments:
    """The log, which a keeper extends in place until the segment is half full.

    Most keepers take in a few jobs, and need no segment of 64 MiB prepared by a helper.
    """

    def __init__(self, wal: Wal) -> None:
        self._wal = wal
        self.adopt, self.seal, self.next_path = wal.adopt, wal.seal, wal.next_path
        self.segment_bytes = wal.segment_bytes

    @property
    def has_next(self) -> bool:
        return self._wal.has_next

    @property
    def wants_next(self) -> bool:
        return self._wal.wants_next and self._wal.used > self._wal.segment_bytes // 2


class KeeperParts:
    """One keeper's parts: made, started, halted, finished in this order."""

    def __init__(
        self,
        config: Config,
        owned: OwnedWal,
        *,
        clock: Clock,
        disk: Disk,
        on_failure: Callable[[BaseException], None],
        make_helper: Callable[[str], Helper],
        make_past: Callable[[Helper, Housekeeping], PastTeller],
    ) -> None:
        """Recovers the store of a journal; the loop runs.

        Raises:
            BeaverError: As `recover`; a refusal has changed nothing.
        """
        snapshots = FileSnapshots(disk, owned.layout)
        self._disk, self._layout = disk, owned.layout
        self._holding = Holding(disk, owned.layout)
        state, self.journal, self.report = recover(owned, snapshots, clock.monotonic_ns)
        report = self.report
        self.store = self.journal.store
        self.engine = Engine(
            state,
            self.journal,
            clock,
            on_failure=on_failure,
            state_bytes_max=config.state_bytes_bound,
            reserve_bytes=min(SERVER_BYTES, config.segment_bytes // 4),
        )
        results, metrics = Results(), Metrics()

        def forget(first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
            results.projected(first_seq + len(events) - 1)

        self.engine.observers += [results.observe, forget]
        self.helper = make_helper(store_mark(self.store.hex(), disk.identity(config.data)))
        self.keeping = Housekeeping(
            self.engine,
            self.journal,
            _Segments(self.journal),
            self.helper,
            results,
            metrics,
            clock=clock,
            snapshot_ms=config.snapshot_ms,
            snapshot_seq=report.snapshot_seq,
            snapshot_bytes=report.snapshot_bytes,
            retention_bytes=config.retention_bytes,
            retention_ms=config.retention_ms,
            on_room=lambda: None,
            on_violation=lambda what: on_failure(AssertionError(what)),
            projects=False,
        )
        resolver = config.resolver()
        self.service = KeeperService(
            self.engine,
            results,
            make_past(self.helper, self.keeping),
            to_job=resolver.job,
            status=self._status,
            payload_bytes_max=config.payload_bytes_max,
        )

    def _status(self, state: State) -> StatusView:
        view = queries.status(
            state,
            self.engine.now_ms(),
            running=False,
            keeper=self.service.pid,
            store=self.store.hex(),
            recovery_ms=self.report.total_ms,
            recovery=msgspec.to_builtins(self.report),
            disk_full=self.engine.admission.disk_full,
            commit_path=self.journal.commit_path,
        )
        view.storage = self._holding.look()
        view.ships = ships(self._disk, self._layout, state.last_seq, self.engine.now_ms())
        return view

    def start(self) -> None:
        """Starts housekeeping."""
        self.keeping.start()

    async def halt(self, close_doors: Callable[[], Awaitable[None]]) -> None:
        """Answers what has been taken in, then ends whatever listens."""
        self.engine.flush()
        await self.service.close()
        self.engine.flush()
        await close_doors()
        await self.keeping.stop()

    async def finish(self) -> None:
        """Closes the journal, and gives it up."""
        await self.helper.stop()
        self.engine.close()
