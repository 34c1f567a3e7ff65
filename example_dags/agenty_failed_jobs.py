"""
### Tell people of jobs that failed

Runs whenever a job of Agenty is aborted, fails or is stopped, whoever started it: Agenty's own scheduler, a person,
another DAG.

- The asset is watched in the triggerer: all watchers of a connection share one request per interval.
- Jobs that fail close together may come to one run of the DAG: `tell` has a line for each of them.
- `tell` writes to its log. Put what reaches your people in its place, such as a message to a chat.

Needs Airflow 3.0 or later; on Airflow 2 there is no DAG in this file. Needs the connection `agenty_default`. One agent
alone is watched if the environment variable `AGENTY_AGENT_ID` names it where the DAG is read, else all of the account.
The DAG is paused at first: once it is unpaused, jobs are watched.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime
from typing import Any

try:
    from airflow.sdk import DAG, Asset, AssetWatcher, task
except ImportError:  # Airflow 2
    DAG = None

from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger

AGENT_ID = os.environ.get("AGENTY_AGENT_ID")

log = logging.getLogger(__name__)

if DAG is not None:
    trigger = AgentyJobEventTrigger(agent_id=AGENT_ID, statuses=("aborted", "failed", "stopped"))
    failed = Asset("agenty_failed_jobs", watchers=[AssetWatcher(name="failed_jobs", trigger=trigger)])

    @task
    def tell(triggering_asset_events: dict[Any, list[Any]]) -> list[str]:
        """Tell of each job that this run is about, once; of none if the run was started by hand."""
        events = [event for events in triggering_asset_events.values() for event in events]
        jobs = {event.extra["payload"]["job_id"]: event.extra["payload"] for event in events}
        lines = [
            f"Job {job_id} of agent {job['agent_id']} is {job['status']}: {job['error'] or 'no reason is named'}"
            for job_id, job in sorted(jobs.items())
        ]
        for line in lines:
            log.warning("%s", line)
        return lines

    with DAG(
        "agenty_failed_jobs",
        schedule=[failed],
        start_date=datetime(2026, 1, 1),
        catchup=False,
        is_paused_upon_creation=True,
        doc_md=__doc__,
        tags=["agenty", "example"],
    ):
        tell()
