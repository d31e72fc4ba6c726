"""An event loop in which only the seed decides: virtual time, and chosen order.

What lives here: the loop, its tasks, and the processes of a simulated machine.  What may
not: anything of Beaver, and any door to the world.  There are no threads, no executors and
no real time; what asks for one gets `Forbidden`.

- Time stands still while something is ready and jumps to the next timer when nothing is.
- Which of the ready callbacks runs next is asked of a chooser.  Choice 0 is always the
  oldest, so a chooser that always says 0 is asyncio's own order, and a shrinker that moves
  towards 0 moves towards the ordinary.
- Every callback belongs to a process and passes it on to what it schedules.  A process that
  is killed runs nothing any more: no `finally`, no callback, as after `kill -9`.  One that
  is stopped is passed over until it goes on, as by SIGSTOP.
- Descriptors of real sockets may be watched, if all their ends are here (`sim.descriptors`).
- Tasks are hashed by the order of their birth.  asyncio keeps tasks in sets; hashed by
  address, one seed would give several orders (measured: six).

The core that runs here uses nothing whose scheduling differs between versions of Python
(no `wait_for`, `timeout` or `TaskGroup`), so one seed is one trace on all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import select
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn, TypeVar

from beaver_chaos.sim.descriptors import Descriptors

T = TypeVar("T")
Choose = Callable[[int], int]
"""Asked with n > 1, returns a choice from 0 to n - 1."""

NS: Final = 1_000_000_000


class Forbidden(AssertionError):
    """The simulated code reached for the real world."""


class ProcessEnded(BaseException):
    """Ends the callback of a process that has just died; nobody may catch it."""


class StepsExceeded(AssertionError):
    """The run took more steps than it may."""


class Process:
    """One process of the simulated machine: the owner of callbacks."""

    __slots__ = ("alive", "name", "parked", "stopped")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.parked: list[SimHandle] = []
        """Callbacks that have become ready while it was stopped."""


class SimHandle(asyncio.TimerHandle):
    """A callback, and the process that it belongs to."""

    __slots__ = ("process",)

    _callback: Any
    _args: Any
    _cancelled: bool

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimLoop,
        context: contextvars.Context,
        process: Process,
        when: float = 0.0,
    ) -> None:
        # The base class would format and copy what is never looked at here.
        self._callback, self._args, self._loop, self._context = callback, args, loop, context
        self._cancelled, self._repr, self._source_traceback = False, None, None
        self._when, self._scheduled = when, False
        self.process = process

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None


class SimTask(asyncio.Task[T]):
    """A task that is hashed by its place in the order of birth."""

    def __init__(self, birth: int, coro: Coroutine[Any, Any, T], **options: Any) -> None:
        self.birth = birth
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.birth

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.AbstractEventLoop):
    """The loop.  Not thread-safe, since there is one thread."""

    def __init__(self, choose: Choose, *, steps_max: int, in_order: bool = False) -> None:
        """Makes a loop with nothing in it.

        Args:
            choose: Decides which ready callback runs next.
            steps_max: Callbacks that a run may take.
            in_order: Callbacks of one process run in the order in which they were
                scheduled, as asyncio promises; otherwise in any.
        """
        self._choose, self._steps_max, self._in_order = choose, steps_max, in_order
        self.now_ns = 0
        self.steps = 0
        self.trace = bytearray()
        """For each step the number of callbacks that were ready, and the one chosen."""
        self.machine = Process("machine")
        """Owner of what belongs to no process: the kernel, the network, the plan."""
        self.current = self.machine
        self.on_quiet: Callable[[], None] = _nothing
        """Called when nothing is ready, before time goes on."""
        self.on_error: Callable[[str, BaseException | None], None] = _raise
        """Called where a callback raised what nobody caught."""
        self.descriptors = Descriptors(self.call_in)
        self._ready: list[SimHandle] = []
        self._timers: list[tuple[int, int, SimHandle]] = []
        self._count = 0
        self._context = contextvars.Context()
        self._tasks: list[SimTask[Any]] = []
        self._births = 0
        self._halted = False
        self._ending = False
        self._closed = False

    # -- running ---------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T]) -> T | None:
        """Runs until `main`, a task of the machine's, has ended, and closes the loop.

        Returns:
            What `main` returns; `None` where the run was halted before.
        """
        before = asyncio._get_running_loop()  # noqa: SLF001 - asyncio's own interface for loops
        asyncio._set_running_loop(self)  # noqa: SLF001
        try:
            task = self.create_task(main)
            while not task.done() and not self._halted:
                self._step()
            result: T | None = task.result() if task.done() else None
            return result
        finally:
            self._discard()
            asyncio._set_running_loop(before)  # noqa: SLF001

    def halt(self) -> None:
        """Ends the run behind this step."""
        self._halted = True

    def _step(self) -> None:
        """Runs one callback, or lets time go on to the next timer."""
        self.descriptors.look()
        ready = self._ready
        if not ready:
            self._advance()
            return
        count = len(ready)
        index = 0
        if count > 1:
            index = self._choose(count)
            if self._in_order:
                process = ready[index].process
                index = next(i for i, handle in enumerate(ready) if handle.process is process)
        handle = ready.pop(index)
        process = handle.process
        if handle._cancelled or not process.alive:  # noqa: SLF001 - our own class
            return
        if process.stopped:
            process.parked.append(handle)
            return
        self.steps += 1
        self.trace.append(count & 0xFF)
        self.trace.append(index & 0xFF)
        if self.steps > self._steps_max:
            raise StepsExceeded(f"more than {self._steps_max} steps")
        self.current = process
        try:
            handle._context.run(handle._callback, *handle._args)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - as every loop does
            self.on_error(f"a callback of {process.name} raised", error)
        except BaseException:
            if process.alive:
                raise
        finally:
            self.current = self.machine

    def _advance(self) -> None:
        """Goes on to the next timer; all that are due then are ready at once."""
        self.on_quiet()
        if self._ready:
            return
        timers = self._timers
        while timers and (timers[0][2]._cancelled or not timers[0][2].process.alive):  # noqa: SLF001
            heapq.heappop(timers)
        if not timers:
            raise StepsExceeded("nothing will ever happen again, and the run has not ended")
        self.now_ns = max(self.now_ns, timers[0][0])
        self._take_due()

    def _take_due(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now_ns:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled and handle.process.alive:  # noqa: SLF001
                self._ready.append(handle)

    def pass_ns(self, passed_ns: int) -> None:
        """Lets time go by inside a callback: what blocks a process takes its time."""
        self.now_ns += passed_ns
        self._take_due()

    def _discard(self) -> None:
        """Drops what is left, so that nothing of this run can happen in another one."""
        self._ending = True
        self._ready.clear()
        self._timers.clear()
        for task in self._tasks:
            if not task.done():
                silent: Any = task
                silent._log_destroy_pending = False  # noqa: SLF001 - as asyncio's runner does
                with contextlib.suppress(BaseException):
                    silent.get_coro().close()
            elif not task.cancelled():
                task.exception()  # Looked at, so that nobody is told of it later.
        self._tasks.clear()
        self._closed = True

    # -- processes -------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """Ends a process at once; what it had scheduled never runs."""
        process.alive = False
        process.parked.clear()

    def stop_process(self, process: Process) -> None:
        """Holds a process, as SIGSTOP does."""
        process.stopped = True

    def continue_process(self, process: Process) -> None:
        """Lets a stopped process go on with what has become ready meanwhile."""
        process.stopped = False
        self._ready += process.parked
        process.parked.clear()

    @contextlib.contextmanager
    def within(self, process: Process) -> Iterator[None]:
        """Whatever the block schedules belongs to `process`."""
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before

    def call_in(
        self, process: Process, delay_ns: int, callback: Callable[..., object], *args: Any
    ) -> SimHandle:
        """Schedules a callback of another process."""
        handle = SimHandle(callback, args, self, self._context, process)
        self._schedule(handle, delay_ns)
        return handle

    def _schedule(self, handle: SimHandle, delay_ns: int) -> None:
        if self._ending:
            return
        if delay_ns <= 0:
            self._ready.append(handle)
            return
        self._count += 1
        heapq.heappush(self._timers, (self.now_ns + delay_ns, self._count, handle))

    # -- asyncio.AbstractEventLoop: what the core uses ---------------------------------------

    def time(self) -> float:
        return self.now_ns / NS

    def call_soon(  # type: ignore[override] # typeshed's variadic form adds nothing here
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = SimHandle(callback, args, self, context or self._context, self.current)
        if not self._ending:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override] # typeshed's variadic form adds nothing here
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override] # typeshed's variadic form adds nothing here
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = SimHandle(callback, args, self, context or self._context, self.current, when)
        self._schedule(handle, round(when * NS) - self.now_ns)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any
    ) -> SimTask[Any]:
        self._births += 1
        task: SimTask[Any] = SimTask(self._births, coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, ProcessEnded) and not self._ending:
            self.on_error(str(context.get("message")), error)

    def add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        self.descriptors.add(self.current, fd, select.POLLIN, callback, args)

    def remove_reader(self, fd: Any) -> bool:
        return self.descriptors.remove(fd, select.POLLIN)

    def add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        self.descriptors.add(self.current, fd, select.POLLOUT, callback, args)

    def remove_writer(self, fd: Any) -> bool:
        return self.descriptors.remove(fd, select.POLLOUT)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: cancelled timers are dropped when they are due."""

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        raise Forbidden("the simulated core has no threads")

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]
        raise Forbidden("the simulated core has no threads")


def _nothing() -> None:
    """The default of `on_quiet`."""


def _raise(message: str, error: BaseException | None) -> None:
    raise AssertionError(message) from error
