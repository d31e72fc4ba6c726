"""Shipping: the log of a store, kept up to date in another place, object by object.

What lives here: places (`targets`), who may write to one (`ownership`), what it holds
(`contents`), bringing it up to the log (`shipper`), and reading it (`fetching`).  What may not: the
store; it is only read, and what is told of a shipper is a hint beside it.
"""
