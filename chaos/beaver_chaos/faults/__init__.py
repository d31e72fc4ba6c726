"""Faults on the real program: kills, system calls that fail, full disks, power, rot, clocks.

What lives here: each kind of fault, and the table of what came of them.  What may not: the
simulated machine (`sim`).
"""
