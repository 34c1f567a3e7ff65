"""
### A job that may not cost, stand still or queue without end

Starts a job and waits for it, within limits:

- `max_credits`: as soon as the job has cost more than 500 page credits, it is stopped. The task fails without a retry,
  because a retry would pay again.
- `stall_timeout`: a job that does not change for half an hour is stopped, and the task fails.
- `queue_timeout`: a job that no worker of Agenty has taken two hours after its start is stopped, and the task fails.

Needs the connection `agenty_default`. The agent can be said when the DAG is triggered.
"""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator

with DAG(
    "agenty_guarded",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="The agent, as in its address at cloud.agenty.com"),
    },
    tags=["agenty", "example"],
):
    AgentyStartJobOperator(
        task_id="run_job",
        agent_id="{{ params.agent_id }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=3,
        max_credits=500,
        stall_timeout=timedelta(minutes=30),
        queue_timeout=timedelta(hours=2),
    )
