"""Access over HTTP: roles, and the tokens of a store.

What lives here: the table of rights; the files of tokens and of sign-in links, for servers and for
the command line; the sessions of browsers.
What may not: HTTP, and anything about who uses the local socket, which is for the store's own
user alone.
"""
