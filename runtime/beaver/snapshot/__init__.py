"""Snapshots: the state of a store at one seq, as a file.

What lives here: the lines of the file, writing it, loading it, keeping two.  What may not: the
log; whoever builds a state from both is `store`.
"""
