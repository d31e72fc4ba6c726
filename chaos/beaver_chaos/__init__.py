"""Fault injection: simulated disk, faults on the real program; never imported by the program."""
