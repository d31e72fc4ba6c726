"""The checker of histories: what was seen outside, against what the log says.

What lives here: `beaver audit` and the rules it checks.  What may not: the model's `legal`; a
history is judged by rules of its own.
"""
