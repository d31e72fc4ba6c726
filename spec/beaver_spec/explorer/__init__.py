"""The explorer: every interleaving of small worlds around the real model.

What lives here: worlds, rules, scopes, properties, the search.  What may not: the model's own
rules written again; the model is asked.
"""
