"""History: the events of a job from the log, long after the state has forgotten it.

What lives here: the index of the log in `history.db`, projections, stories of jobs.  What may
not: state that decides anything; a history can be deleted and is built again.
"""
