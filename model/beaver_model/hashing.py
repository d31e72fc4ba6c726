"""BLAKE2b, taken from where it is: `hashlib` would bring OpenSSL along.

That is 3.5 MB in each process that needs this one function, workers and the helper among them.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # another Python than CPython
    from hashlib import blake2b

__all__ = ["blake2b"]
