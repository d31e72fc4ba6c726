"""`python -m beaver`: the same as `beaver`."""

import os
import sys

if "BEAVER_SERVE" in os.environ:
    from beaver.cli.becoming import serve

    sys.exit(serve())

from beaver.cli.main import main

sys.exit(main())
