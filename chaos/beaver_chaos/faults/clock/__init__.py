"""Clocks that jump under the real program."""
