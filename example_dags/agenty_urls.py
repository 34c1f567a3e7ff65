"""
### Other URLs in each run

Gives an agent the URLs to scrape, starts a job for them, waits for it, and lands its result as a CSV file.

- `list_urls` says which pages: here those of the run's params, elsewhere those of a query, a sitemap or another job.
- `run_job` sets them as the agent's input right before it starts the job. A retry that goes on with the job of the try
  before leaves the input alone.
- The input belongs to the agent, not to the job. `max_active_runs=1` keeps the runs of this DAG apart, and `run_job`
  ends when its job is over; no other DAG should start the same agent.

Needs the connection `agenty_default`. Agent, URLs and folder can be said when the DAG is triggered.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))


@task
def list_urls(params: dict[str, Any]) -> list[str]:
    """Return the pages of this run, each once: one that is listed twice is fetched, and paid for, twice."""
    return list(dict.fromkeys(params["urls"]))


with DAG(
    "agenty_urls",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="The agent, as in its address at cloud.agenty.com"),
        "urls": Param(
            ["https://books.toscrape.com/", "https://books.toscrape.com/catalogue/page-2.html"],
            type="array",
            description="The pages to scrape",
        ),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the file goes: a local path or a URL"),
    },
    tags=["agenty", "example"],
):
    run_job = AgentyStartJobOperator(
        task_id="run_job",
        agent_id="{{ params.agent_id }}",
        urls=list_urls(),
        wait_for_completion=True,
        deferrable=True,
        poll_interval=3,
    )
    AgentyExportOperator(task_id="land", job_id=run_job.output, path="{{ params.folder }}/{{ run_id }}.csv")
