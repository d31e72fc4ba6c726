"""`beaver enqueue`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, BinaryIO

import typer

from beaver.cli import completing, flags, output
from beaver.cli.single import backoff_value, single_job
from beaver.cli.store import Store, url_of
from beaver.config.layers import Config
from beaver.errors import BeaverError, InvalidInput, NoServer, ServerGone, WaitTimeout
from beaver.structs.messages import Request
from beaver.structs.views import Accepted, ResultView
from beaver.text.foreign import counted
from beaver_model.bounds import PAYLOAD_BYTES_CEILING

SHOWN_MAX = 20
"""Jobs that are named one by one in text; more are counted."""

EXIT_JOB_FAILED = 1


def enqueue_command(
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="[TASK]",
            help="The name of the task, such as that of a function with @app.job.",
            show_default=False,
            autocompletion=completing.tasks,
        ),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(metavar="[JSON]", help="Its payload [default: null].", show_default=False),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE|-", help="A job file; - reads stdin."),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id [default: one is drawn].")
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            metavar="NAME",
            help="Its queue [default: default].",
            autocompletion=completing.queues,
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", metavar="0-9", help="0 runs first, 9 last [default: 5]."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="WHEN", help="Do not run before this time: ISO 8601 or ms."),
    ] = None,
    in_: Annotated[
        str | None,
        typer.Option("--in", metavar="TIME", help="Do not run before this long from now."),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Limit of one attempt.")
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            "--max-attempts", metavar="N", help="Attempts, the first included [default: 5]."
        ),
    ] = None,
    backoff: Annotated[
        str | None,
        typer.Option(
            "--backoff",
            metavar="TIME|JSON",
            help="Wait between attempts, with its unit (5s), or an object as in a job file.",
        ),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="A tag; may be repeated.")
    ] = None,
    chunked: Annotated[
        bool,
        typer.Option("--chunked", help="Send a large file in many commits; each job needs an id."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results.")] = False,
    wait_timeout: Annotated[
        str | None, typer.Option("--wait-timeout", metavar="TIME", help="Wait no longer than this.")
    ] = None,
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    url: flags.Url = None,
    ca_file: flags.CaFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Enqueue one job, or a file of jobs: all of them or none.

    A file is a JSON array of jobs, or one job per line. The jobs are on disk when this ends,
    whether or not a server runs. A job that exists with the same content is left alone, so
    sending the same again is safe.

    Examples:
      beaver enqueue send_receipt '{"order": 7}' --id order-7 --wait
      beaver enqueue report --in 2h --queue slow --timeout 30m
      beaver enqueue --file jobs.json
      generate-jobs | beaver enqueue --file - --json
      beaver enqueue --file huge.jsonl --chunked
    """
    settings = flags.configuration(data, config)
    job = {
        "id": job_id,
        "queue": queue,
        "priority": priority,
        "run_at": at,
        "delay": in_,
        "timeout": timeout,
        "max_attempts": max_attempts,
        "backoff": backoff_value(backoff),
    }
    given = {name: value for name, value in job.items() if value is not None}
    if (task is None) == (file is None):
        raise InvalidInput("either TASK or --file FILE is expected")
    if task is not None and chunked:
        raise InvalidInput("--chunked: only a file can be sent in chunks")
    if file is not None and (given or tags):
        names = ", ".join(given) or "tag"
        raise InvalidInput(f"--file: the jobs of a file have their own options; drop {names}")
    store = Store(settings.data, as_json, url_of(url, data), ca_file)
    sender = _Sender(settings, store, wait=wait, wait_timeout=wait_timeout)
    if file is None:
        assert task is not None, "one of both is there"
        given["tags"] = tags or ()
        raise typer.Exit(sender.send_one(partial(single_job, task, payload, given)))
    with _opened(file) as stream:
        raise typer.Exit(sender.send_file(file, stream, chunked=chunked))


@contextmanager
def _opened(file: str) -> Any:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(file, "rb")  # noqa: PTH123, SIM115 - closed just below
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or error}") from None
    with stream:
        try:
            yield stream
        except IsADirectoryError:
            raise InvalidInput(f"{file}: Is a directory") from None


class _Sender:
    """Sends requests and says what became of them; methods return the exit code."""

    def __init__(
        self, settings: Config, store: Store, *, wait: bool, wait_timeout: str | None
    ) -> None:
        from beaver.text.durations import parse_duration_ms

        self._settings, self._store, self._as_json = settings, store, store.as_json
        self._wait_s: float | None = None
        if wait_timeout is not None:
            self._wait_s = parse_duration_ms(wait_timeout, "--wait-timeout") / 1000
        self._wait = wait or wait_timeout is not None
        self._strange: set[tuple[str, ...]] = set()
        """Tasks that no worker knows, which was told."""
        self._created = self._existing = self._first_seq = self._last_seq = 0

    def send_one(self, make: Callable[[int], Request]) -> int:
        """Sends the job that `make` returns for the bound on a payload that is in force."""
        with self._client() as client:
            request = make(self._bound(client))
            try:
                answers = client.enqueue([request])
            except (ServerGone, KeyboardInterrupt) as error:
                raise self._unknown(error, f"with --id {request.id}") from None
            self._tell(answers)
            return self._results(client, answers) if self._wait else 0

    def send_file(self, file: str, stream: BinaryIO, *, chunked: bool) -> int:
        """Sends a file: one commit, or many with `chunked`."""
        from beaver.request import jobfile

        with self._client() as client:
            bound = self._bound(client)
            requests = jobfile.read_requests(stream, payload_bytes_max=bound, need_ids=chunked)
            try:
                if chunked:
                    return self._send_chunks(file, stream, jobfile.chunks(requests), client)
                batch = jobfile.one_commit(requests)
            except InvalidInput as error:
                raise _in_file(error, file) from None
            if not batch:
                return self._nothing()
            try:
                answers = client.enqueue(batch)
            except (ServerGone, KeyboardInterrupt) as error:
                again = f"with --file {_keep_for_retry(file, batch)}"
                raise self._unknown(error, again) from None
            self._tell(answers)
            self._sum_up(len(answers))
            return self._results(client, answers) if self._wait else 0

    def _send_chunks(
        self, file: str, stream: BinaryIO, batches: Iterable[Sequence[Request]], client: Any
    ) -> int:
        sent: list[Accepted] = []
        count = 0
        total = _size_of(stream)
        with output.progress(f"enqueueing {file}", total) as advance:
            try:
                for answers in client.enqueue_each(batches):
                    self._tell(answers, one_by_one=False)
                    count += len(answers)
                    if self._wait:
                        sent += answers
                    advance(stream.tell() if total else count, total)
            except (ServerGone, KeyboardInterrupt) as error:
                again = f"from the same file; so far {counted(count, 'job')} came in"
                raise self._unknown(error, again) from None
            except BeaverError as error:
                if count:
                    wrong = isinstance(error, InvalidInput)
                    what = "mend the file and send it again" if wrong else "send the file again"
                    came_in = f"Before it {counted(count, 'job')} came in"
                    raise type(error)(
                        f"{error}\n{came_in}, and some behind it may be in; {what}: "
                        "what is in is not enqueued twice."
                    ) from None
                raise
        if not count:
            return self._nothing()
        self._sum_up(count)
        return self._results(client, sent) if self._wait else 0

    def _bound(self, client: Any) -> int:
        """Returns the bound on a payload: the server's, or without one what is set here."""
        if self._store.url:
            return PAYLOAD_BYTES_CEILING  # It has the last word.
        greeting = getattr(client, "greeting", None)
        told: int = greeting.payload_bytes_max if greeting is not None else 0
        return told or self._settings.payload_bytes_max

    def _client(self) -> Any:
        """Connects to the server, or opens the files where none runs."""
        from beaver.client.blocking import no_server
        from beaver.client.opening import open_client

        if self._store.url:
            return self._store.connect()
        settings = self._settings
        client = open_client(settings.data, settings=settings)
        if not client.runs_jobs and self._wait:
            why = no_server(settings.data, "so nothing would ever end; nothing was enqueued")
            raise NoServer(f"--wait: {why}")
        return client

    # -- what is said ---------------------------------------------------------------------

    def _nothing(self) -> int:
        say = output.note if self._as_json else output.line
        say("nothing to enqueue")
        return 0

    def _tell(self, answers: Sequence[Accepted], *, one_by_one: bool = True) -> None:
        for answer in answers:
            if answer.unknown_task and answer.unknown_task not in self._strange:
                self._strange.add(answer.unknown_task)
                output.note(f"beaver: warning: {answer.warning}")
            self._created += answer.created
            self._existing += not answer.created
            if answer.created:
                self._first_seq = self._first_seq or answer.seq
                self._last_seq = answer.seq
            if self._as_json:
                output.json_line({"id": answer.id, "seq": answer.seq, "created": answer.created})
            elif one_by_one and len(answers) <= SHOWN_MAX:
                what = "enqueued" if answer.created else "exists already, same content:"
                output.line(f"{what} {answer.id} (seq {answer.seq})")

    def _sum_up(self, count: int) -> None:
        if self._as_json or count <= 1:
            return
        text = f"{counted(self._created, 'job')} enqueued"
        if self._created:
            text += f" (seq {self._first_seq} to {self._last_seq})"
        if self._existing:
            text += f", {self._existing} existed already with the same content"
        output.line(text)

    def _unknown(self, error: BaseException, again: str) -> BaseException:
        """Returns the error that says how to send again what may or may not have arrived."""
        what = str(error).partition("\n")[0] if isinstance(error, ServerGone) else "interrupted"
        text = f"{what}: the outcome is unknown" if "unknown" not in what else what
        message = f"{text}\nSending the same again is safe: {again}."
        if isinstance(error, ServerGone):
            return ServerGone(message)
        output.note(f"beaver: {message}")
        return error

    # -- --wait --------------------------------------------------------------------------------

    def _results(self, client: Any, answers: Sequence[Accepted]) -> int:
        deadline = None if self._wait_s is None else time.monotonic() + self._wait_s
        failed = 0
        for index, answer in enumerate(answers):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                result = client.wait(answer.id, left)
            except WaitTimeout:
                raise WaitTimeout(
                    f"job {answer.id} has not ended after {self._wait_s:g} s; it goes on"
                    + (f", as may {counted(len(answers) - index - 1, 'other')}" if index else "")
                ) from None
            failed += result.state not in ("completed", "expired")
            self._tell_result(result)
        return EXIT_JOB_FAILED if failed else 0

    def _tell_result(self, result: ResultView) -> None:
        if self._as_json:
            output.json_line(result)
            return
        text = f"{result.id} {output.paint(result.state, output.STATE_COLOURS.get(result.state))}"
        if result.state == "completed":
            text += f": {bytes(result.result).decode()}"
        elif result.error or result.cause:
            text += f": {result.cause} {result.error}".rstrip()
        output.line(text)


def _size_of(stream: BinaryIO) -> int:
    """Returns how long a file is, or 0 for a pipe."""
    import os
    import stat

    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _in_file(error: InvalidInput, file: str) -> InvalidInput:
    return type(error)(f"{'stdin' if file == '-' else file}: {error}")


def _keep_for_retry(file: str, requests: Sequence[Request]) -> str:
    """Writes the requests, with the ids that were drawn, beside their file; returns where."""
    from beaver.request.jobfile import retry_path, write_requests

    path = retry_path("stdin" if file == "-" else file)
    try:
        write_requests(path, requests)
    except OSError as error:
        ids = ", ".join(request.id for request in requests[:SHOWN_MAX])
        more = ", ..." if len(requests) > SHOWN_MAX else ""
        return f"{file} ({path} could not be written: {error.strerror}); ids: {ids}{more}"
    return path
