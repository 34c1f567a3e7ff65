"""
### From an agent to a CSV file

Starts a job of one Agenty agent, waits for it without taking up a worker slot, and lands its result as a CSV file.

- `start` answers as soon as Agenty has accepted the job. If its answer is lost, or the worker dies, a retry finds the
  job rather than starting, and paying for, a second one.
- `wait` is deferred: it waits in the triggerer, which shares one request between all the jobs it waits for.
- `land` lets the file appear only once it is whole: its length and its rows are verified first.

Needs the connection `agenty_default`. Which agent, and which folder, can be said when the DAG is triggered.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))

with DAG(
    "agenty_to_csv",
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
    start = AgentyStartJobOperator(task_id="start", agent_id="{{ params.agent_id }}", retries=2)
    # Seconds between two polls of the job. A minute suits a job that runs for hours.
    wait = AgentyJobSensor(task_id="wait", job_id=start.output, deferrable=True, poke_interval=3)
    # Runs that a person or an asset started have no logical date; every run has a run_id.
    land = AgentyExportOperator(task_id="land", job_id=start.output, path="{{ params.folder }}/{{ run_id }}.csv")
    start >> wait >> land
