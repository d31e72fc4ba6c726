"""The Python API: what `from beaver import ...` gives.

What lives here: the application, decorated functions, handles, tests of applications.  What may
not: anything that another language's client would need too (`request`, `client`).
"""
