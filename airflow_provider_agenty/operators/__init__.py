"""Operators that start, stop and land jobs."""
