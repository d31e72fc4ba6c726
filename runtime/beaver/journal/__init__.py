"""The journal: the log of events on disk, and what reads it.

`format` and `codec` are bytes, `scan` and `reader` read, `wal` writes.  What may not live
here: the state, and any decision about damage; that is `recovery`.
"""
