"""The store: from journal and snapshots to a state, and to a log that can be appended to.

What lives here: where a replay begins, rebuilding, recovery, how much there is to read.  What
may not: a running server's parts.
"""
