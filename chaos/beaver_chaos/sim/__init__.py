"""The simulator: the whole runtime in one process, where a seed decides everything else.

What lives here: simulated clock, disk, network and processes, plans, watching, shrinking.  What
may not: a copy of what the runtime does; only its ports are replaced.
"""
