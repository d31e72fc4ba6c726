"""Structs: messages between processes, and views for readers.

What lives here: plain data, each struct once, for every transport.  What may not: behaviour,
or an import of anything else of Beaver.
"""
