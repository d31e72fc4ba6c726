"""A reload of a running server: new code and settings, asked for by a client or by SIGHUP.

What may not live here: how crews take over from each other (`assembly`, `dispatch`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from beaver.config.layers import Config
from beaver.config.setting import DEFAULT
from beaver.config.settings import NEEDS_RESTART, SETTINGS
from beaver.errors import BeaverError, StoreUnavailable
from beaver.server.assembly import Assembly
from beaver.server.storage import at_home
from beaver.structs.views import ReloadView
from beaver.task import output
from beaver.text.foreign import counted

log = logging.getLogger("beaver")


class Reloading:
    """Renews one server's parts, while they serve."""

    def __init__(
        self, parts: Assembly, reread: Callable[[], Config], adopt: Callable[[Config], None]
    ) -> None:
        """Notes what a reload is about.

        Args:
            parts: What is renewed.
            reread: Returns the settings as they are now.
            adopt: Told the settings that serve from now on.
        """
        self._parts, self._reread, self._adopt = parts, reread, adopt
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def end(self) -> None:
        """Refuses further reloads, and cancels the one under way."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()

    def begin(self) -> None:
        """Begins a reload whose outcome is only logged."""
        task = asyncio.get_running_loop().create_task(self._reload_and_tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_and_tell(self) -> None:
        try:
            await self.reload()
        except BeaverError:
            pass  # It is logged.
        except Exception:
            # A bug of ours: the former workers serve on all the same.
            log.exception("reload failed")

    async def reload(self) -> ReloadView:
        """Starts workers with code and settings as they are now.

        Raises:
            BeaverError: It did not work; the former ones serve on.
        """
        parts = self._parts
        try:
            if self._is_over:
                raise StoreUnavailable("the server is shutting down; nothing was reloaded")
            config = self._reread()
            if config.origins["data"] == DEFAULT:
                config = msgspec.structs.replace(
                    config, data=parts.config.data, origins=parts.config.origins
                )
            renewed = await parts.renew(config)
        except BeaverError as error:
            log.error(  # noqa: TRY400 - what failed is in the message
                "reload failed, and the former workers serve on: %s", error
            )
            raise
        output.configure_server(config.log_level, config.log_format)
        self._adopt(config)
        fixed = [setting.name for setting in SETTINGS.values() if setting.name in NEEDS_RESTART]
        fields = {name: SETTINGS[name].field for name in fixed}
        before = renewed.before
        at_home(config, renewed.app_store)
        restart = [n for n, f in fields.items() if getattr(config, f) != getattr(before, f)]
        log.warning(
            "reloaded: %s; %s still at work",
            counted(config.workers, "new worker"),
            counted(renewed.leaving, "former one"),
        )
        for name in restart:
            log.warning("reload: %s was changed; that takes a restart", name)
        return ReloadView(config.workers, renewed.tasks, renewed.leaving, tuple(restart))
