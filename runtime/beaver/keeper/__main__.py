"""The first step of a keeper: it leaves its starter, before anything large is loaded.

The starter reaps this process at once, so no application has a child that it knows nothing
of, and the keeper gets the init process as its parent.
"""

from __future__ import annotations

import os

if os.fork():
    os._exit(0)

from beaver.keeper.process import main

main()
