"""Transport: the frames of the local socket, and where a server can be found.

What lives here: framing without I/O, `server.json`, the socket's path.  What may not: what the
messages mean (`request.operations`, `server.service`).
"""
