"""The places that a file can be landed at."""
