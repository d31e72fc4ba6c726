"""HTTP: its listener, the bounds on its connections, its pages.

What lives here: how HTTP is spoken.  What may not: what is done (`server.service`).
"""
