"""Changes of many jobs at once: which, the files that keep them, and carrying them out.

What lives here: sets of jobs that are fixed when they are asked for, and survive a restart.  What
may not: what a change does to a job (the model), and how it is asked for (`http.bulk`).
"""
