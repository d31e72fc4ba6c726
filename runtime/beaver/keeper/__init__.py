"""The keeper: a server without workers, which producers start where none runs.

It holds the lock, the state and the log of a store, and takes in jobs over the store's
socket, so that many producers share one recovery and one sync.  It runs nothing.  Idle for a
while it ends, and `beaver run` asks it to end at once.

`parts` is the engine with what is around it, and `process` the process.  What may not live
here: the producer's side (`holder`).
"""
