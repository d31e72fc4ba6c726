"""An application whose import leaves a socket open, so that it must not be forked."""

import os
import socket

from beaver.structs.messages import Options
from beaver.task.registry import Registry, Task

registry = Registry()
imported_in = os.getpid()
connection = socket.socketpair()
socket.setdefaulttimeout(0.001)  # no socket of ours may take it over


def where() -> list[int]:
    return [imported_in, os.getpid(), os.getppid()]


registry.add(Task(where, Options("where")))
