"""The doctor: whether a machine and a data directory are fit for a store, and what to do if not.

What lives here: facts, read from the machine (`facts`), and what each of them means (`checks`).
What may not: mending; only a probe of the disk is written, without a name where that is possible.
"""
