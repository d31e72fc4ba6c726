"""Clients of a server by its URL: the calls of every client, over the contract of HTTP.

What lives here: what each call is as a request, whether and when one is sent again, and two ways
to send one: from any thread, and from an event loop.  What may not live here: what HTTP's routes
do (`server.http`), and what Python users see (`api`).

Nothing of it is loaded before an application names a URL.
"""
