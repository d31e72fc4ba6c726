"""A reader and a writer of logs that know `docs/reference/wal.md`, and nothing of Beaver.

What lives here: what a program in another language would need, in plain Python.  What may not: an
import of any package of ours, or of a library for CRC-32C or MessagePack.
"""
