"""Traces: logs of the real program against the specification, event by event.

What lives here: the rules of `Lifecycle` for a log, in Python and for TLC.  What may not: the
model's `legal`: a trace is judged by the specification alone.
"""
