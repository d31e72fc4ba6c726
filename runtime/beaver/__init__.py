"""Beaver: a durable job queue."""
