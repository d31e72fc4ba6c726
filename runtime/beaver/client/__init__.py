"""Clients of a store, whether a server, a keeper or nobody holds it.

What lives here: the operations, once for every way to ask: over one connection, blocking or not,
over the files where nobody holds them, and the same across changes of who does.  What may not:
what the Python API looks like (`api`).
"""
