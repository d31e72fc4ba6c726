"""The write-ahead log in files: format, writing, reading, locking, and what damage means.

What lives here: every byte of a segment, the names of the files of a store, who may write to
them, and the table that says what their state means.  What may not: events' meaning, state.
"""
