"""`python -m beaver`: the same as `beaver`."""

import sys

from beaver.cli.main import main

sys.exit(main())
