"""The flags that commands share, and the configuration that comes out of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from beaver.config.layers import Config, load_config
from beaver.config.settings import SETTINGS

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="The data directory [default: data; BEAVER_DATA]."),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A YAML file with settings [default: beaver.yaml if there].",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Ask the server at http://HOST:PORT or https://... instead [default: BEAVER_URL]. "
        "Its token stands in BEAVER_TOKEN.",
    ),
]
CaFile = Annotated[
    str | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="With https: certificates to trust, as PEM [default: BEAVER_CA_FILE].",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def setting(name: str, metavar: str, *names: str) -> Any:
    """Returns the option for a setting: its help and default come from the table."""
    known = SETTINGS[name]
    choices_text = f" One of {', '.join(known.choices)}." if known.choices else ""
    text = f"{known.help}{choices_text} [default: {known.default_text()}]"

    def choices(incomplete: str) -> list[str]:
        return [choice for choice in known.choices if choice.startswith(incomplete)]

    offers = choices if known.choices else None
    return typer.Option(*names, known.flag, metavar=metavar, help=text, autocompletion=offers)


def switch(name: str) -> Any:
    """Returns the option for a setting that is on or off."""
    known = SETTINGS[name]
    return typer.Option(f"{known.flag}/--no-{known.flag[2:]}", help=known.help)


def configuration(
    data: str | None, config: str | None, flags: Mapping[str, Any] | None = None
) -> Config:
    """Returns the configuration from all layers, these flags on top."""
    return load_config({"data": data, **(flags or {})}, file=config)
