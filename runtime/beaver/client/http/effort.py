"""One call over HTTP, carried through lost connections, restarts and refusals: what is sent, when
it is sent again, and until when.

What is safe to repeat stands in the table of operations (`resend`): jobs have ids before they are
first sent.  What is not is sent once, unless nothing of it can have reached the server.  Every
call ends: after its `timeout`, or, a wait, after its own; and after `PATIENCE_S` of nothing but
trouble.

No clock and no connection here: whoever sends tells what became of it.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from beaver.client.blocking import gone
from beaver.client.calls import Call
from beaver.client.http import messages
from beaver.client.http.messages import Answer, Ask, Pending
from beaver.errors import BeaverError, NoServer, WaitTimeout
from beaver.request.operations import WAIT, Wait

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
"""Time that a call may take, all its tries included; a wait has its own."""
PATIENCE_S: Final = 10.0
"""Time for which a server that is not there, or takes nothing, is asked again."""
CONNECT_S: Final = 5.0
"""Time of one try to connect."""
SILENCE_S: Final = 10.0
"""Time without a byte after which a connection counts as lost."""
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Time from one try to the next; the last one holds for all that follow."""
CROWD_S: Final = 0.25
"""Time between two questions for a result, where no long poll is free."""


class Unreached(Exception):
    """Nothing of a request was sent."""


class Lost(Exception):
    """The answer to a request will not come; the request may have arrived."""


class Effort(Generic[T]):
    """One call."""

    def __init__(
        self,
        call: Call[T],
        url: str,
        now_s: float,
        timeout_s: float | None = None,
    ) -> None:
        """Takes a call that is made at `now_s`, by a clock that only goes forward.

        With a `timeout_s` that is all that counts; 0 tries once.
        """
        self._call, self._url, self._now_s = call, url, now_s
        self._patience_s = PATIENCE_S if timeout_s is None else timeout_s
        self._trouble_since_s: float | None = None
        self._tries = 0
        wait_ms = call.body.timeout_ms if call.operation is WAIT else 0
        self._wait_s: float | None = wait_ms / 1000 if wait_ms >= 0 else None
        """How long a wait may take; `None` for ever."""
        self._started_s = now_s
        limit_s = TIMEOUT_S if timeout_s is None else timeout_s or CONNECT_S
        self._until_s = now_s + max(limit_s, messages.ask(call).hold_s)

    @property
    def waits(self) -> bool:
        """True of a wait for the end of a job."""
        return self._call.operation is WAIT

    @property
    def fresh(self) -> bool:
        """True where a connection that was used before must not be: it may just be ending."""
        return not self._call.operation.resend

    def next(self, now_s: float, *, poll: bool = True) -> tuple[Ask, float]:
        """Returns the request to send now, and when its answer must be there.

        Args:
            now_s: The time.
            poll: The server may hold it until there is something to say.
        """
        self._now_s = now_s
        call: Call[Any] = self._call
        if self.waits:
            left_s = self._left_s(now_s)
            left_ms = -1 if left_s is None else round(left_s * 1000)
            call = Call(WAIT, Wait(call.body.job, left_ms if poll else 0), call.finish)
        asked = messages.ask(call)
        limit_s = asked.hold_s + SILENCE_S
        if not self.waits:
            limit_s = max(0.001, self._until_s - now_s)
        return asked, now_s + limit_s

    def unreached(self, error: Exception, now_s: float) -> float:
        """Notes that no server was there; returns after how many seconds to try again.

        Raises:
            NoServer: It has been so for long enough.
        """
        why = NoServer(f"{self._url}: no server answers: {error}")
        return self._again(now_s, why)

    def lost(self, error: Exception, now_s: float) -> float:
        """Notes that an answer will not come; returns after how many seconds to try again.

        Raises:
            ServerGone: The request is not to be sent again, or that was done for long enough.
        """
        told = gone(self._call.operation)
        told.args = (f"{self._url}: {error}: {told}",)
        if not self._call.operation.resend:
            raise told from None
        return self._again(now_s, told)

    def answered(self, answer: Answer, now_s: float, *, authorised: bool) -> T:
        """Reads an answer: returns what the call comes to.

        Raises:
            Later: To be asked again.
            BeaverError: It is the answer, and final.
        """
        call = self._call
        refused = messages.refusal(answer, self._url, authorised)
        if refused is None:
            try:
                found: T = call.finish(messages.read(call, answer, self._url))
            except Pending:
                self._trouble_since_s, self._tries = None, 0
                left_s = self._left_s(now_s)
                if left_s == 0.0:
                    raise self._too_late() from None
                raise Later(0.0) from None
            return found
        instead = messages.ASKED[call.operation].instead.get(refused.type)
        if instead is not None:
            value: T = call.finish(instead(call.body))
            return value
        raise Later(self._refused(refused, answer.status, now_s))

    def _refused(self, refused: messages.Refusal, status: int, now_s: float) -> float:
        """Returns after how many seconds to ask again after a refusal; raises one that is final."""
        error, resend = refused.error, self._call.operation.resend
        if status not in (429, 502, 503, 504):
            raise error
        if refused.type == "too_many_requests" and self.waits:
            self._trouble_since_s = None  # Others wait as well: that is no trouble.
        nothing_done = status == 429 or isinstance(error, messages.NOTHING_DONE)
        if not resend and not nothing_done:
            told = gone(self._call.operation)
            told.args = (f"{error}\n{told}",)
            raise told
        return self._again(now_s, error, refused.retry_after_s)

    def _again(self, now_s: float, error: BeaverError, after_s: float | None = None) -> float:
        """Returns after how many seconds to try again; raises `error` where that is too late."""
        if self._trouble_since_s is None:
            self._trouble_since_s = now_s
        pause_s = PAUSES_S[min(self._tries, len(PAUSES_S) - 1)] if after_s is None else after_s
        self._tries += 1
        then_s = now_s + pause_s
        left_s = self._left_s(now_s) if self.waits else None
        if left_s is not None and pause_s >= left_s:
            raise self._too_late() from error
        if then_s >= self._trouble_since_s + self._patience_s:
            raise error
        if not self.waits and then_s >= self._until_s:
            raise error
        return pause_s

    def _left_s(self, now_s: float) -> float | None:
        if self._wait_s is None:
            return None
        return max(0.0, self._started_s + self._wait_s - now_s)

    def _too_late(self) -> WaitTimeout:
        """Returns the error of a wait whose time is over."""
        job = self._call.body.job
        return WaitTimeout(f"job {job} has not ended after {self._wait_s:g} s; it goes on")


class Later(Exception):
    """The call is to be made again after some seconds."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(pause_s)
        self.pause_s = pause_s
