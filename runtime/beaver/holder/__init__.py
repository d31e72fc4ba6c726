"""Holders: who holds a store, waiting for them, and having a keeper started.

What lives here: the turn between processes that want one store, owning its log, starting a
keeper, taking over.
What may not: what a holder does once it holds the store (`server`, `keeper`).
"""
