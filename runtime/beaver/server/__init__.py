"""The server: put together, run, renewed and taken apart, and what it does beside its jobs.

What lives here: the order of start and end (`serve`), the parts over their ports (`assembly`),
the operations over the engine (`service`), the local socket, HTTP, housekeeping, metrics, what
is printed.  What may not: decisions about jobs (`engine`, `dispatch`), user code (`workers`).
"""
