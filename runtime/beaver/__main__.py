"""`python -m beaver`: the same as `beaver`."""

import os
import sys

from beaver.system.standard import open_standard_descriptors


def _main() -> int:
    open_standard_descriptors()
    if "BEAVER_SERVE" in os.environ:
        from beaver.cli.becoming import serve

        return serve()
    from beaver.cli.main import main

    return main()


sys.exit(_main())
