"""History: what the log tells of a job, long after the state forgot it.

What lives here: the index of the log in `history.db`, projections, stories of jobs.  What may
not: state that decides anything; a history can be deleted and is built again.
"""
