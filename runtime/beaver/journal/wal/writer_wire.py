"""The messages between a server and its writer process: see `writer`."""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("<BQI")
"""To the writer: kind, offset, length of the frame that follows."""
ANSWER: Final = struct.Struct("<iq")
"""From the writer: errno or 0, nanoseconds that write and sync took."""
WRITE: Final = 0
FILE: Final = 1
"""The next frames go to the file whose descriptor comes along."""
