"""``python -m airflow_provider_agenty``: the commands for people who look after tasks."""

from airflow_provider_agenty.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
