"""An application whose import hangs as long as a file is there, and is not to be forked.

The file is named by the environment: `HANGS_FIRST` for the process that imports first (the
zygote), `HANGS_LATER` for the workers.  A subprocess is left running where it hangs.
"""

import os
import subprocess
import threading
import time
from pathlib import Path

from beaver.structs.messages import Options
from beaver.task.registry import Registry, Task

registry = Registry()
is_worker = "BEAVER_WORKER" in os.environ
flag = Path(os.environ.get("HANGS_LATER" if is_worker else "HANGS_FIRST", "/nowhere"))
if flag.exists():
    program = subprocess.Popen(["sleep", "600"])
    flag.with_suffix(".pids").open("a").write(f"{os.getpid()} {program.pid}\n")
while flag.exists():
    time.sleep(0.01)
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def where() -> int:
    return os.getpid()


registry.add(Task(where, Options("where")))
