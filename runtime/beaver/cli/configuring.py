"""`beaver config`."""

from __future__ import annotations

from typing import Any

import msgspec

from beaver.cli import flags, output
from beaver.config.layers import shown
from beaver.config.settings import SETTINGS


def config_command(
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Show every setting, its value and its origin.

    A flag overrides the environment (BEAVER_WORKERS and so on), the environment overrides the
    YAML file, and the file overrides the default.

    Examples:
      beaver config
      beaver config --config production.yaml --json
    """
    settings = flags.configuration(data, config)
    values = {name: shown(settings, known) for name, known in SETTINGS.items()}
    origins = {name: settings.origins[known.field] for name, known in SETTINGS.items()}
    if as_json:
        output.json_line(
            {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
        )
        return
    rows = [[name, _text(value), origins[name]] for name, value in values.items()]
    output.table(("setting", "value", "from"), rows)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
