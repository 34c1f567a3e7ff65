"""
### When a job completes, whoever started it

Runs whenever a job of one Agenty agent completes, and lands the result of that very job as a CSV file. It does not
matter who started the job: Agenty's own scheduler, a person, another DAG.

- The asset is watched in the triggerer: all watchers of a connection share one request per interval.
- Jobs that complete close together may come to one run of the DAG: `completed_jobs` lists them, `land` has a task for
  each.
- The file is named after agent, job and collection. Should an event come twice, which Airflow does not rule out where a
  triggerer is killed, the same file is landed again.

Needs Airflow 3.0 or later; on Airflow 2 there is no DAG in this file. Needs the connection `agenty_default`. The agent
is taken from the environment variable `AGENTY_AGENT_ID` where the DAG is read; the folder can be said when the DAG is
triggered by hand too. The DAG is paused at first: once it is unpaused, the agent is watched.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, Asset, AssetWatcher, Param, task
except ImportError:  # Airflow 2
    DAG = None

from airflow_provider_agenty.operators.agenty import AgentyExportOperator
from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger

AGENT_ID = os.environ.get("AGENTY_AGENT_ID", "45l0wewqzk")
LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))

if DAG is not None:
    # Seconds between two polls of the list of jobs. A minute or more suits jobs that run for hours.
    trigger = AgentyJobEventTrigger(agent_id=AGENT_ID, poll_interval=10)
    completed = Asset(f"agenty_completed_{AGENT_ID}", watchers=[AssetWatcher(name="completed_jobs", trigger=trigger)])

    @task
    def completed_jobs(triggering_asset_events: dict[Any, list[Any]]) -> list[int]:
        """Return the jobs that this run is about; none if the run was started by hand."""
        events = [event for events in triggering_asset_events.values() for event in events]
        return sorted({event.extra["payload"]["job_id"] for event in events})

    with DAG(
        "agenty_on_completion",
        schedule=[completed],
        start_date=datetime(2026, 1, 1),
        catchup=False,
        is_paused_upon_creation=True,
        doc_md=__doc__,
        params={
            "folder": Param(LANDING_FOLDER, type="string", description="Where the files go: a local path or a URL"),
        },
        tags=["agenty", "example"],
    ):
        # A path that ends in a slash gets a file named after agent, job and collection.
        AgentyExportOperator.partial(task_id="land", path="{{ params.folder }}/").expand(job_id=completed_jobs())
