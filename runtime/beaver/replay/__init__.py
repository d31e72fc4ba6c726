"""Replay: a store read without a server: listed, checked, told job by job.

What lives here: `beaver replay` and `beaver verify` without their terminal.  What may not:
writing; nothing here changes a byte of a store.
"""
