"""Worlds for tests: the real parts put together over simulated or real ports."""
