"""What of a server others can reach, and whether somebody meant that.

What may not live here: the settings themselves (`settings`).
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from beaver.config.layers import Config
from beaver.errors import InvalidInput


def check_exposure(config: Config) -> None:
    """Checks what a server with these settings would show to others.

    Raises:
        InvalidInput: Nobody has said that this is meant, or a file is missing.
    """
    if config.http_address is not None:
        _check_tls(config)
        host = config.http_address[0]
        if not (config.tls_cert or config.http_insecure or is_loopback(host)):
            raise InvalidInput(
                f"{_label(config, 'http')}: {host} is not loopback, and whoever sees the traffic "
                "would have the tokens in it\n"
                "Give --tls-cert and --tls-key, or --http-insecure where something else encrypts."
            )
    for program in config.exec_allow:
        if not (Path(program).is_file() and os.access(program, os.X_OK)):
            raise InvalidInput(
                f"{_label(config, 'exec_allow')}: {program!r:.200} is no program that can be run"
            )


def _check_tls(config: Config) -> None:
    given = {"tls_cert": config.tls_cert, "tls_key": config.tls_key}
    missing = [name for name, path in given.items() if not path]
    if len(missing) == 1:
        (there,) = given.keys() - missing
        flag = f"--{missing[0].replace('_', '-')}"
        raise InvalidInput(
            f"{_label(config, there)}: TLS takes a certificate and its key; give {flag} as well"
        )


def is_loopback(host: str) -> bool:
    """True for an address, or the name, of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _label(config: Config, name: str) -> str:
    """Returns what a setting is called where it was given."""
    origin = config.origins[name]
    return origin if origin.startswith(("--", "BEAVER_")) else f"{origin}: {name}"
