"""A real Airflow on this machine, started and stopped from Python, and the demonstration that runs on it."""
