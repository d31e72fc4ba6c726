"""An application whose import ends the program."""

import sys

sys.exit("bad environment")
