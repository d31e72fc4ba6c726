"""Backup: a copy of a store, taken while it is used, and a store made of such a copy.

What lives here: what belongs to a copy (`capture`), the tar stream that carries it (`stream`),
the file that holds one (`writing`), and how it becomes a store again (`restoring`, `rewriting`).
What may not: the server; it runs `__main__` as a process of its own.  A store that is copied is
only read, without its lock.
"""
