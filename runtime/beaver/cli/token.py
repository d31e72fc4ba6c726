"""`beaver token`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from beaver.access.roles import ROLES
from beaver.cli import output
from beaver.cli.store import Store, on_directory
from beaver.errors import InvalidInput
from beaver.text.durations import format_time, parse_duration_ms
from beaver.text.near import unknown_name

ACTIONS: Final = ("create", "list", "revoke")


def _offers(*words: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


@on_directory
def token_command(
    store: Store,
    action: Annotated[
        str,
        typer.Argument(
            metavar="create|list|revoke",
            help="What to do.",
            autocompletion=_offers(*ACTIONS),
        ),
    ],
    which: Annotated[
        str | None,
        typer.Argument(metavar="[ID|NAME]", help="The token, to revoke it.", show_default=False),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help=f"What its bearer may do. One of {', '.join(ROLES)}.",
            autocompletion=_offers(*ROLES),
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What to call it.", show_default=False)
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="TIME", help="How long it is good, as 30d; else for ever."
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="NAME",
            help="With --role produce: a queue that it may use; may be repeated.",
        ),
    ] = None,
) -> None:
    """Make, list and revoke the tokens that HTTP asks for.

    A token is shown once, when it is made; only its digest is kept. It works without a server,
    and a server that runs follows within a second.

    Examples:
      beaver token create --role read --name grafana
      beaver token create --role produce --queue mail --expires 90d
      beaver token list
      beaver token revoke grafana
    """
    given = {"--role": role, "--name": name, "--expires": expires, "--queue": queue}
    if action != "create":
        _refuse({key: value for key, value in given.items() if value}, action)
    if action != "revoke" and which is not None:
        raise InvalidInput(f"{which!r:.80}: `beaver token {action}` takes no token")
    if action == "create":
        _create(store, role, name, expires, tuple(queue or ()))
    elif action == "list":
        _list(store)
    elif action == "revoke":
        _revoke(store, which)
    else:
        hint = unknown_name(action, ACTIONS)
        raise InvalidInput(f"no action {action!r:.80}; there are {', '.join(ACTIONS)}{hint}")


def _refuse(given: dict[str, Any], action: str) -> None:
    if given:
        raise InvalidInput(f"{next(iter(given))} goes with `beaver token create`, not {action}")


def _create(
    store: Store, role: str | None, name: str, expires: str | None, queues: tuple[str, ...]
) -> None:
    from beaver.access import tokens
    from beaver.journal.wal.lock import prepare_directory
    from beaver.system.clock import SystemClock, SystemEntropy
    from beaver.system.disk import SystemDisk

    if role is None:
        raise InvalidInput(f"--role: one is needed; the roles are {', '.join(ROLES)}")
    now_ms = SystemClock().wall_ms()
    expires_ms = 0 if expires is None else now_ms + parse_duration_ms(expires, "--expires")
    prepare_directory(SystemDisk(), store.data)
    token, secret = tokens.create(
        store.data,
        role,
        now_ms=now_ms,
        entropy=SystemEntropy(),
        name=name,
        expires_ms=expires_ms,
        queues=queues,
    )
    if store.as_json:
        output.json_line({**_shown(token), "token": secret})
        return
    output.line(secret)
    output.note(f"This token ({token.id}, role {role}) is not shown again.")


def _list(store: Store) -> None:
    from beaver.access import tokens
    from beaver.transport.endpoint import require_directory

    require_directory(store.data)
    found = tokens.listed(store.data)
    if store.as_json:
        for token in found:
            output.json_line(_shown(token))
        return
    rows = [
        [
            token.id,
            token.name or "-",
            token.role,
            ", ".join(token.queues) or "all",
            format_time(token.created_ms),
            format_time(token.expires_ms) if token.expires_ms else "never",
        ]
        for token in found
    ]
    output.table(("id", "name", "role", "queues", "created", "expires"), rows)


def _revoke(store: Store, which: str | None) -> None:
    from beaver.access import tokens
    from beaver.transport.endpoint import require_directory

    if which is None:
        raise InvalidInput("name the token by its id or its name; `beaver token list` shows them")
    require_directory(store.data)
    token = tokens.revoke(store.data, which)
    if store.as_json:
        output.json_line(_shown(token))
    else:
        output.line(f"revoked {token.name or token.id}")


def _shown(token: Any) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name or None,
        "role": token.role,
        "queues": list(token.queues),
        "expires_ms": token.expires_ms or None,
    }
