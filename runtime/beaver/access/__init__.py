"""Access over HTTP: roles, and the tokens of a store.

What lives here: the table of rights, and the file of tokens, for servers and for the command line.
What may not: HTTP, and anything about who uses the local socket, which is for the store's own
user alone.
"""
