"""Where a server's journal and snapshots are kept, and how they become its own.

What lives here: the interface, so that a server runs over another journal alike, and the files
of a data directory behind it.  What may not: what is done with them (`assembly`, `serve`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from beaver.client.blocking import socket_of_url
from beaver.config.layers import Config
from beaver.config.setting import DEFAULT
from beaver.errors import StorageFailed
from beaver.helper.process import HelperProcess
from beaver.holder import starting
from beaver.holder.owning import own_log
from beaver.holder.takeover import take_over
from beaver.journal.port import Journal, Owned
from beaver.journal.wal.format import STORE_ID_BYTES
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import acquire
from beaver.journal.wal.opening import OwnedWal
from beaver.ports import Clock, Entropy, Helper
from beaver.server.answers import PastTeller
from beaver.server.housekeeping import Housekeeping
from beaver.server.http.listener import check_address
from beaver.server.past import Past
from beaver.snapshot.files import FileSnapshots
from beaver.snapshot.port import Snapshots
from beaver.store.rebuild import Replica
from beaver.store.recovery import read_ahead
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint

log = logging.getLogger("beaver")


class Storage(Protocol):
    """Where journal and snapshots are kept."""

    def read_ahead(self, config: Config) -> asyncio.Future[Replica | None]:
        """Rebuilds the state while the application is imported; `None` where that is no use."""
        ...

    async def own(self, config: Config, stop: asyncio.Event) -> Owned[Journal] | None:
        """Returns the journal, owned; `None` where `stop` was set while it was waited for."""
        ...

    def snapshots(self, config: Config) -> Snapshots:
        """Returns what its state is read on from."""
        ...

    def keep_open(self, config: Config) -> None:
        """Told once the journal is written to: what each sync needs stays open."""
        ...

    def make_helper(self, config: Config, mark: str) -> Helper:
        """Returns who works on it beside the server, marked as the store's."""
        ...

    def make_past(self, config: Config, helper: Helper, keeping: Housekeeping) -> PastTeller:
        """Returns who tells of the past."""
        ...


class Files:
    """The `Storage` of a data directory."""

    def __init__(self, disk: SystemDisk, clock: Clock, entropy: Entropy) -> None:
        self._disk, self._clock, self._entropy = disk, clock, entropy

    def read_ahead(self, config: Config) -> asyncio.Future[Replica | None]:
        """Reads the store while the zygote imports the application, on another core.

        Nothing is written and no lock is held, so an import that fails leaves no trace, and what
        was read is used only if it still holds under the lock.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Replica | None] = loop.create_future()
        if config.takeover or (config.app and config.origins["data"] == DEFAULT):
            # Another server writes on, or the application says where its store is.
            found.set_result(None)
            return found

        def tell(reading: Replica | None) -> None:
            if not found.done():
                found.set_result(reading)

        def read() -> None:
            reading = read_ahead(self._disk, config.data, clock=self._clock)
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(tell, reading)

        threading.Thread(target=read, name="read ahead", daemon=True).start()
        return found

    async def own(self, config: Config, stop: asyncio.Event) -> OwnedWal | None:
        """See `Storage`."""
        store = self._entropy.token_bytes(STORE_ID_BYTES)
        attempt = partial(own_log, config, self._disk, self._clock, store)
        if not config.takeover:
            ask_keeper = partial(starting.ask_to_leave, config.data)
            return acquire(attempt, config.data, between=ask_keeper)
        if config.http_address is not None and config.http_is_explicit:
            # Before anybody leaves for a server that then ends.
            former = endpoint.read(config.data)
            await check_address(*config.http_address, former=former.http if former else "")
        return await take_over(attempt, config.data, stop)

    def snapshots(self, config: Config) -> Snapshots:
        """See `Storage`."""
        return FileSnapshots(self._disk, Layout(config.data))

    def keep_open(self, config: Config) -> None:
        """See `Storage`."""
        layout = Layout(config.data)
        try:
            self._disk.keep(layout.path, layout.archive)
        except OSError as error:
            raise StorageFailed(f"cannot open {error.filename}: {error.strerror}") from error

    def make_helper(self, config: Config, mark: str) -> Helper:
        """See `Storage`."""
        return HelperProcess(config.data, mark)

    def make_past(self, config: Config, helper: Helper, keeping: Housekeeping) -> PastTeller:
        """See `Storage`."""
        return Past(Layout(config.data), helper, keeping)


def at_home(config: Config, app_store: str) -> Config:
    """Returns the configuration with the application's own data directory, unless told another.

    A directory given to the server wins, with a warning if the two differ: the application enqueues
    into one store, and this server serves the other.
    """
    if not app_store or "://" in app_store or socket_of_url(app_store) is not None:
        return config
    if config.origins["data"] == DEFAULT:
        origins = {**config.origins, "data": "the application"}
        return msgspec.structs.replace(config, data=str(Path(app_store)), origins=origins)
    if os.path.realpath(app_store) != os.path.realpath(config.data):
        log.warning(
            "this server serves %s (%s), and the application says %s: what it enqueues by itself "
            "goes there, and is not run here",
            config.data,
            config.origins["data"],
            app_store,
        )
    return config
