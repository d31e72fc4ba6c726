"""The engine: the one owner of the state, and the only one that appends to the log.

What lives here: decide, apply in memory, commit, reply, and the bounds on what is taken in.
What may not: slots, workers, sockets, the wall clock: stamps come from a port.
"""
