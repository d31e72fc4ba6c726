"""Induction: promises proved with z3, without bounds on records, crashes or time.

What lives here: states, steps and invariants as formulas.  What may not: files or the program.
"""
