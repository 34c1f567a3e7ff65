"""
### Many agents at once, one file each

Starts a job of each agent in the list, waits for all of them, and lands one file for each.

Every agent goes its own way through the three tasks: the file of a quick agent is there while a slow one still runs,
and an agent that fails keeps no other from landing. The jobs that Agenty has no free slot for are queued there.

Needs the connection `agenty_default`. Which agents, and which folder, can be said when the DAG is triggered.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, Param, task, task_group
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task, task_group
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))


@task
def list_agents(params: dict[str, Any]) -> list[str]:
    """Return the agents of this run; they could as well come from a table or a file."""
    return list(params["agent_ids"])


@task_group
def one_agent(agent_id: str) -> None:
    """Start, wait and land: three tasks for each agent."""
    start = AgentyStartJobOperator(task_id="start", agent_id=agent_id)
    wait = AgentyJobSensor(task_id="wait", job_id=start.output, deferrable=True, poke_interval=3)
    # A path that ends in a slash gets a file named after agent, job and collection.
    land = AgentyExportOperator(task_id="land", job_id=start.output, path="{{ params.folder }}/{{ run_id }}/")
    start >> wait >> land


with DAG(
    "agenty_many_agents",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "agent_ids": Param(["45l0wewqzk", "w9qmlp5475", "lmqdjwd972"], type="array", description="The agents"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the files go: a local path or a URL"),
    },
    tags=["agenty", "example"],
):
    one_agent.expand(agent_id=list_agents())
