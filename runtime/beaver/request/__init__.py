"""Requests: what a producer asks, from its arguments to the model's `NewJob`.

What lives here: options and their bounds, ids, job files, templates, the resolver, and what a
refusal means to whoever asked.  What may not: sockets, state, the engine: a request is the same
whoever takes it in.
"""
