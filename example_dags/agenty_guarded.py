"""
### A job with limits, and a result that has to be good

Starts a job, waits for it and lands its CSV, within limits:

- `max_credits`: as soon as the job has cost more than 500 page credits, it is stopped. The task fails without a retry,
  because a retry would pay again.
- `stall_timeout`: a job that does not change for half an hour is stopped, and the task fails.
- `queue_timeout`: a job that no worker of Agenty has taken two hours after its start is stopped, and the task fails.
- `required_fields`: each row has a name, and 95 % of them have a price; else nothing is landed.
- `max_row_drop`: the result has at least half of the rows of the job before; else nothing is landed.

Needs the connection `agenty_default`. The agent can be said when the DAG is triggered.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))

with DAG(
    "agenty_guarded",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="The agent, as in its address at cloud.agenty.com"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the file goes: a local path or a URL"),
    },
    tags=["agenty", "example"],
):
    job = AgentyStartJobOperator(
        task_id="run_job",
        agent_id="{{ params.agent_id }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=3,
        max_credits=500,
        stall_timeout=timedelta(minutes=30),
        queue_timeout=timedelta(hours=2),
    )
    AgentyExportOperator(
        task_id="land",
        job_id=job.output,
        path="{{ params.folder }}/",
        required_fields={"name": 1, "price": 0.95},
        max_row_drop=0.5,
    )
