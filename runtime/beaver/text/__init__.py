"""Text: JSON kept as it was sent, durations and sizes, near names, what others wrote.

What lives here: pure functions from text to text or values.  What may not: files, clocks,
what a job is.
"""
