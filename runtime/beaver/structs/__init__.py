"""Structs: what passes between processes and what readers are told.

What lives here: plain data, each struct once, for every transport.  What may not: behaviour,
or an import of anything else of Beaver.
"""
