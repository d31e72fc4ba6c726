"""TLS: the certificate of a server, renewed while it serves.

Certificates are renewed every few weeks, by a program that replaces two files.  Whoever connects
after that gets the new one; connections that are open keep theirs.

What may not live here: connections (`vestibule`).
"""

from __future__ import annotations

import logging
import os
import ssl
import stat
from typing import Final

from beaver.errors import InvalidInput

LOOK_S: Final = 1.0
"""How often a server looks whether its certificate was replaced."""
_HALFWAY: Final = 2
"""Looks for which a pair that does not fit may be one that is being replaced."""

log: Final = logging.getLogger("beaver")


class Certificate:
    """The certificate and the key of a server, as two files have them."""

    def __init__(self, cert: str, key: str) -> None:
        """Reads them.

        Raises:
            InvalidInput: They cannot be used.
        """
        self._cert, self._key = cert, key
        self._seen = self._marks()
        self.context = _context(cert, key)
        """For connections that begin now."""
        self._failed = 0
        if os.stat(key).st_mode & (stat.S_IRWXO | stat.S_IWGRP):  # noqa: PTH116
            log.warning(
                "--tls-key: %s can be read or written by others, who can then pose as this server; "
                "chmod o=,g-w removes that",
                key,
            )

    def look(self) -> None:
        """Takes what the files hold, where they were replaced; what cannot be used is told."""
        marks = self._marks()
        if marks == self._seen:
            return
        try:
            self.context = _context(self._cert, self._key)
        except InvalidInput as error:
            self._failed += 1
            if self._failed == _HALFWAY:
                log.error(  # noqa: TRY400 - what failed is in the message
                    "the new certificate cannot be used, and the former one stays: %s",
                    error,
                )
            return
        self._seen, self._failed = marks, 0
        log.info("the certificate was replaced; who connects from now on gets the new one")

    def _marks(self) -> tuple[tuple[int, int, int], ...]:
        """Returns what changes where a file is replaced."""
        marks = []
        for path in (self._cert, self._key):
            try:
                found = os.stat(path)  # noqa: PTH116
            except OSError:
                marks.append((0, 0, 0))
            else:
                marks.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(marks)


def _context(cert: str, key: str) -> ssl.SSLContext:
    """Returns what shows this certificate.

    Raises:
        InvalidInput: It cannot be used.
    """
    for flag, path in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            with open(path, "rb"):  # noqa: PTH123
                pass
        except OSError as error:
            raise InvalidInput(f"{flag}: cannot read {path}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def locked() -> str:
        raise InvalidInput(
            f"--tls-key: {key} is encrypted, and a server has nobody to ask for its password; "
            "store it decrypted, readable by the user of the server alone"
        )

    try:
        context.load_cert_chain(cert, key, locked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidInput(
                f"--tls-key: {key} is not the key of the certificate in {cert}"
            ) from None
        raise InvalidInput(
            f"--tls-cert, --tls-key: {cert} and {key} hold no certificate and key as PEM: "
            f"{error.reason or error}"
        ) from None
    return context
