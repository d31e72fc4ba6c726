"""Configuration: the table of settings and the layers that give them values.

What lives here: one table from which flags, variables, the file and the reference are made.
What may not: parts of a server; they are given their values.
"""
