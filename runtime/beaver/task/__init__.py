"""Tasks: what user code meets when it declares a task, and inside a running attempt.

What lives here: the registry, signatures, the context, directives, built-in tasks, the output
of jobs.  What may not: processes and executors (`workers`), clients (`api`).
"""
