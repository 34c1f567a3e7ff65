"""What the tests look at: tasks that stay deferred for as long as the sandbox lets them."""

from __future__ import annotations

import os
from datetime import datetime

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

AGENT, OTHER_AGENT = "45l0wewqzk", "lmqdjwd972"

with DAG("waits", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    wait = AgentyJobSensor(task_id="wait", job_id=start.output, deferrable=True, poke_interval=1)
    wait >> AgentyExportOperator(task_id="land", job_id=start.output, path=f"{os.environ['LANDING_FOLDER']}/")
    AgentyStartJobOperator.partial(task_id="mapped", wait_for_completion=True, deferrable=True, poll_interval=1).expand(
        agent_id=[AGENT, OTHER_AGENT]
    )

with DAG("waits_in_worker", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, wait_for_completion=True, poll_interval=1)

with DAG("uses_form", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, agenty_conn_id="from_form")
