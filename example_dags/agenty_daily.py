"""
### Each day's result in a folder of its own

Scrapes once a day and lands the result as `day=2026-01-31/books.csv.gz` below a folder.

An agent scrapes the site as it is now. A run of an old day, cleared or backfilled, would land today's prices under that
day's name, and pay for them. So `is_todays_run` skips a run that was due more than a day ago, and nothing is started.

The day is that on which the run was due. Its name has no `:` and no `+` in it, as `run_id` has, so Hive, Spark and
Athena read the folders as partitions.

Needs the connection `agenty_default`. Which agent, and which folder, can be said when the DAG is triggered.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))


@task.short_circuit
def is_todays_run(data_interval_end: datetime | None = None) -> bool:
    """Say whether the run was due within the last day. One without a date was not."""
    return data_interval_end is not None and datetime.now(UTC) - data_interval_end < timedelta(days=1)


with DAG(
    "agenty_daily",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    is_paused_upon_creation=True,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="The agent, as in its address at cloud.agenty.com"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the files go: a local path or a URL"),
    },
    tags=["agenty", "example"],
):
    job = AgentyStartJobOperator(
        task_id="run_job",
        agent_id="{{ params.agent_id }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=3,
        retries=2,
    )
    is_todays_run() >> job
    AgentyExportOperator(
        task_id="land",
        job_id=job.output,
        path="{{ params.folder }}/day={{ data_interval_end | ds }}/books.csv.gz",
        retries=2,
    )
