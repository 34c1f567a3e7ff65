"""A real Airflow on this machine, started and stopped from Python: for tests that need one, and for `make demo`."""
