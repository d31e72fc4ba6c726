"""The operations of a store: one table from which every client and server is built.

An entry gives the name of an operation, its arguments, its answer, and what it does.  `calls` makes
a method of every client from it; a running server (`server.service`) and
a store without one (`local_store`) carry it out by a method of the entry's name. So a new operation
is one entry, a builder of its calls, and a method on either side; a test checks that both sides
have every entry.

What may not live here: how something is asked or carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar, get_args

import msgspec

from beaver.errors import BeaverError, InvalidInput
from beaver.structs.messages import Request
from beaver.structs.questions import Where
from beaver.structs.views import (
    Accepted,
    BulkView,
    EventView,
    ExplainView,
    JobView,
    QueueView,
    ReloadView,
    ResultView,
    StatusView,
    View,
)
from beaver_model.bounds import ID_BYTES_MAX, NAME_BYTES_MAX

T = TypeVar("T")

_Id = Annotated[str, msgspec.Meta(max_length=ID_BYTES_MAX)]
_Name = Annotated[str, msgspec.Meta(max_length=NAME_BYTES_MAX)]


# -- what is asked with: MessagePack arrays, checked where they are read ---------------------------


class Nothing(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """No arguments."""


class Jobs(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Jobs to take in with one commit."""

    jobs: list[Request]


class OneJob(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A job by its id."""

    job: _Id


class Wait(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A job whose end is waited for."""

    job: _Id
    timeout_ms: int
    """-1 for none."""


class Again(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A job that is to run again."""

    job: _Id
    payload: bytes | None
    """JSON in place of its own."""


class Listing(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Which jobs are wanted; empty and 0 where it does not matter."""

    word: _Name
    queue: _Name
    task: _Name
    after_seq: int
    limit: int
    tag: _Name = ""
    since_ms: int = 0
    until_ms: int = 0


class Many(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What is to be done to all jobs that fit."""

    action: _Name
    where: Where
    dry_run: bool = False
    """Only count them."""


class OneBulk(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """An action on many jobs by its id."""

    bulk: _Id


class QueueSettings(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Settings of a queue; `None` keeps a value."""

    queue: str
    paused: bool | None
    weight: int | None
    bytes_max: int | None
    durable_dispatch: bool | None = None


# -- the table -------------------------------------------------------------------------------------


class Operation(Generic[T]):
    """One entry."""

    def __init__(
        self,
        name: str,
        body: type[msgspec.Struct],
        answer: type[T],
        *,
        method: str = "",
        changes: bool = False,
        resend: bool = True,
        of_server: bool = False,
    ) -> None:
        """Makes an entry.

        Args:
            name: Its name on the wire.
            body: Type of its arguments.
            answer: Type of its answer: views as JSON; anything else as MessagePack.
            method: Name of its methods, where that differs.
            changes: It changes jobs or queues.
            resend: Doing it twice does no harm, so it may be sent again when an answer was lost.
            of_server: It is about the process that serves a store, and not about the store.
        """
        self.name, self.body, self.answer = name, body, answer
        self.method = method or name
        self.changes, self.resend, self.of_server = changes, resend, of_server
        self.parse: Final = _view(answer) if _is_view(answer) else _plain(answer)
        """Turns the body of an answer into the value."""
        self._read: Final = msgspec.msgpack.Decoder(body).decode

    def __repr__(self) -> str:
        return f"<operation {self.name}>"

    def arguments(self, body: Any) -> Any:
        """Returns the arguments of a request, as `body`.

        Args:
            body: The arguments as they came, encoded or decoded.

        Raises:
            InvalidInput: It does not fit.
        """
        try:
            if type(body) is msgspec.Raw:
                return self._read(body)
            return msgspec.convert(body, self.body)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the arguments do not fit the operation: {error}") from error


def _is_view(answer: Any) -> bool:
    kind = (get_args(answer) or (answer,))[0]
    return isinstance(kind, type) and issubclass(kind, View)


_decode_bytes: Final = msgspec.msgpack.Decoder(bytes).decode


def _view(kind: type[T]) -> Callable[[Any], T]:
    decoder = msgspec.json.Decoder(kind)
    return _checked(lambda body: decoder.decode(_decode_bytes(body)))


def _plain(kind: type[T]) -> Callable[[Any], T]:
    return _checked(msgspec.msgpack.Decoder(kind).decode)


def _checked(decode: Callable[[Any], T]) -> Callable[[Any], T]:
    def parse(body: bytes) -> T:
        try:
            return decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BeaverError(f"the server's answer is not what was asked for: {error}") from error

    return parse


ENQUEUE: Final = Operation("enqueue", Jobs, list[Accepted], changes=True)
STATUS: Final = Operation("status", Nothing, StatusView)
LIST: Final = Operation("list", Listing, list[JobView], method="list_jobs")
SHOW: Final = Operation("show", OneJob, JobView)
EXPLAIN: Final = Operation("explain", OneJob, ExplainView)
HISTORY: Final = Operation("history", OneJob, list[EventView])
WAIT: Final = Operation("wait", Wait, ResultView)
CANCEL: Final = Operation("cancel", OneJob, str, changes=True)
REQUEUE: Final = Operation("requeue", Again, str, changes=True, resend=False)
DISCARD: Final = Operation("discard", OneJob, str, changes=True, resend=False)
SET_QUEUE: Final = Operation("set_queue", QueueSettings, QueueView, changes=True)
BULK: Final = Operation("bulk", Many, BulkView, changes=True, resend=False)
BULK_STATUS: Final = Operation("bulk_status", OneBulk, BulkView, of_server=True)
RELOAD: Final = Operation("reload", Nothing, ReloadView, of_server=True, resend=False)
LEAVE: Final = Operation("leave", Nothing, list[Any], of_server=True, resend=False)
"""Asked by a server that wants the store; clients have no method for it."""

OPERATIONS: Final[dict[str, Operation[Any]]] = {
    operation.name: operation
    for operation in (
        ENQUEUE, STATUS, LIST, SHOW, EXPLAIN, HISTORY, WAIT, CANCEL, REQUEUE, DISCARD, SET_QUEUE,
        BULK, BULK_STATUS, RELOAD, LEAVE,
    )
}  # fmt: skip
