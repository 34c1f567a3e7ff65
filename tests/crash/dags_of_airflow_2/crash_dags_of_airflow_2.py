"""The DAGs that crash on Airflow 2: which agent a run is about comes in its conf."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow import DAG

from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator

for dag_id, deferrable in (("sync", False), ("deferred", True)):
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1)):
        AgentyStartJobOperator(
            task_id="start",
            agent_id="{{ dag_run.conf['agent_id'] }}",
            wait_for_completion=True,
            deferrable=deferrable,
            poll_interval=0.3,
            retries=1,
            retry_delay=timedelta(seconds=1),
        )
