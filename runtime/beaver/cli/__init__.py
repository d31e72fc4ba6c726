"""The command line: one module a group of commands, imported only when it is used.

What lives here: flags, output, exit codes.  What may not: anything that a script could not do
through the Python API.
"""
