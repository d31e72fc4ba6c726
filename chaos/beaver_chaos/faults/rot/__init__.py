"""Bit rot: every kind of damage at every place of every file of a store."""
