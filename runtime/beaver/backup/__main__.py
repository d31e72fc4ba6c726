"""`python -m beaver.backup DATA PARENT`: sends a backup to standard output; for the server.

A process of its own, so that reading and replaying a large store keeps nobody waiting, and so that
a client that goes away takes with it all that it held.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from beaver.backup.writing import stream_backup
from beaver.errors import BeaverError
from beaver.system.clock import SystemClock
from beaver.system.descriptors import raise_limit
from beaver.system.disk import SystemDisk
from beaver.system.kinship import die_with_parent
from beaver.text.foreign import printable


def main() -> int:
    """Returns 0 once the whole backup is written."""
    die_with_parent(int(sys.argv[2]), signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(10)
    raise_limit()
    out = sys.stdout.fileno()

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(out, view) :]

    try:
        stream_backup(SystemDisk(), sys.argv[1], write, SystemClock())
    except BrokenPipeError:
        return 1
    except BeaverError as error:
        sys.stderr.write(printable(str(error)))
        return error.exit_code
    except OSError as error:
        sys.stderr.write(printable(f"{error.filename or sys.argv[1]}: {error.strerror}"))
        return 1
    return 0


os._exit(main())  # Whatever its threads still do.
