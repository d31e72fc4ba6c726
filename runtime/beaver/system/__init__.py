"""The machine: clock, disk, files that are what they seem, users, memory, descriptors, kin.

What lives here: everything that asks the operating system and knows nothing of jobs.  With
`workers`, `helper`, `keeper` and the two ends of a connection it is the only place that may.
What may not: state, formats of files, settings.
"""
