"""The demonstration, on a real Airflow."""
