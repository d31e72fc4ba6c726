"""An application whose import starts a thread, so that it must not be forked."""

import os
import threading
import time

from beaver.structs.messages import Options
from beaver.task.registry import Registry, Task

registry = Registry()
imported_in = os.getpid()
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def where() -> list[int]:
    return [imported_in, os.getpid(), os.getppid()]


registry.add(Task(where, Options("where")))
