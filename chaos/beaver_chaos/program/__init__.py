"""The real program under faults, and who uses it meanwhile.

What lives here: starting it, finding its processes, killing them, producers and an operator.
What may not: the faults themselves (`faults`).
"""
