"""Checkers of the specification and the explorer; imported lazily, never by the program."""
