"""
### What the jobs of the last days cost

Adds up the page credits of all jobs by agent and day, and writes them as a CSV file: `day,agent_id,jobs,credits`. A day
is one of UTC, by when the job was made.

Agenty lists the newest jobs first, so only the pages with those days are read. Credits of a job that still runs are
those it has used so far: the next report has the rest.

Needs the connection `agenty_default`. The number of days and the folder can be said when the DAG is triggered. The
folder is a local one.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models.param import Param

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))


@task
def write_report(params: dict[str, Any]) -> str:
    """Write the file, and return its path."""
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    today = datetime.now(UTC).date()
    since = datetime.combine(today - timedelta(days=params["days"] - 1), time(), UTC)
    jobs: dict[tuple[str, str], int] = defaultdict(int)
    credits_used: dict[tuple[str, str], int] = defaultdict(int)
    with AgentyHook() as hook:
        for job in hook.list_jobs(since=since):
            if job.created_at is not None:
                key = job.created_at.date().isoformat(), job.agent_id or ""
                jobs[key] += 1
                credits_used[key] += job.pages_credit or 0
    folder = Path(params["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"agenty-credits-{today}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["day", "agent_id", "jobs", "credits"])
        writer.writerows([*key, jobs[key], credits_used[key]] for key in sorted(jobs))
    return str(path)


with DAG(
    "agenty_cost_report",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "days": Param(7, type="integer", minimum=1, description="How many days, today counted"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the file goes: a local folder"),
    },
    tags=["agenty", "example"],
):
    write_report()
