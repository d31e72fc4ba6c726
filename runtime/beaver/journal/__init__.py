"""The journal: the log of events, in order, and what reads it.

What lives here: what a commit is (`codec`), and each kind of log behind it (`wal`: files on this
machine).  What may not: the state that is built from it (`store`), or who appends (`engine`).
"""
