"""The zygote as the server sees it: starting it, speaking with it, seeing its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from beaver.errors import InvalidInput
from beaver.text.foreign import cut
from beaver.transport.framing import FrameReader
from beaver.workers import wire
from beaver.workers.host import Host
from beaver.workers.outlet import Item, Outlet

_READ_BYTES: Final = 64 << 10
_POLL_S: Final = 0.002


class ZygoteProcess:
    """One zygote, from its start to its end."""

    def __init__(
        self,
        config: wire.WorkerConfig,
        mark: str,
        on_message: Callable[[Any], None],
        on_lost: Callable[[ZygoteProcess], None],
        host: Host,
    ) -> None:
        """Starts a zygote."""
        self.generation = host.new_generation()
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_lost = on_lost
        self.ready = False
        """It has said that the application is imported."""
        self.fault = ""
        """The fault that it is given up for; empty while all is well."""
        self._frames = FrameReader(wire.FRAME_BYTES_MAX)
        self._control, theirs = wire.stream_pair()
        with theirs:
            self._process = host.start_zygote(config, theirs, mark, self.generation)
        self._outlet = Outlet(self._loop, self._control)
        self._loop.add_reader(self._control, self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: wire.Add | wire.Kill | wire.Claim, fds: tuple[int, ...] = ()) -> None:
        """Sends a message; the descriptors are closed here once they are on their way."""
        self._outlet.send(Item(wire.frame(message), fds))

    def _read(self) -> None:
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            self._on_lost(self)
            return
        try:
            for body in self._frames.feed(data):
                self._on_message(wire.decode_control(body))
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidInput) as error:
            # The application was imported there, and its threads reach this socket.
            self.fault = f"sent what is no message ({cut(str(error), wire.DETAIL_CHARS_MAX)})"
            self.hang_up()
            self._on_lost(self)

    def hang_up(self) -> None:
        """Closes the control socket: the zygote kills and reaps everything, and ends."""
        self._loop.remove_reader(self._control)
        self._outlet.close()
        self._control.close()

    async def wait(self, seconds: float) -> bool:
        """Waits for the zygote's end; false where it has not come after `seconds`."""
        deadline_s = self._loop.time() + seconds
        while self._process.poll() is None:
            if self._loop.time() > deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def kill(self) -> str:
        """Kills and reaps the zygote; returns how it ended.  Its workers die with it."""
        self._process.kill()
        code = self._process.wait()
        how = f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"
        return f"{self.fault}, and {how}" if self.fault else how
