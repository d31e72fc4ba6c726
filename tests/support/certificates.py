"""Certificates of an authority of our own, for servers on this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.needs import need

NAMES = "DNS:localhost,IP:127.0.0.1"


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def flags(self) -> tuple[str, str, str, str]:
        """The flags of `beaver run`."""
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))


class Authority:
    """A certification authority in a directory; clients trust the file `cert`."""

    def __init__(self, directory: Path) -> None:
        need(None if shutil.which("openssl") else "openssl is not installed")
        self.directory = directory
        self.cert, self._key = directory / "ca.pem", directory / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
            *("-subj", "/CN=Beaver tests", "-days", "30"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(self._key), "-out", str(self.cert)),
        )

    def issue(self, name: str, names: str = NAMES) -> Pair:
        """Makes a certificate for a server.

        Args:
            name: Of the files, and the common name.
            names: The names it is for.
        """
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
            *("-CA", str(self.cert), "-CAkey", str(self._key)),
            *("-subj", f"/CN={name}", "-days", "30", "-addext", f"subjectAltName={names}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", str(pair.key), "-out", str(pair.cert)),
        )
        pair.key.chmod(0o600)
        return pair


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
