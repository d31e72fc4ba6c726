"""Inspection: questions to a state, and events as people and scripts see them.

What lives here: pure functions from a state or an event to views.  What may not: how the state
was come by: a server's, a replay's and a test's are asked the same.
"""
