"""
### All agents with a tag

Starts a job of each agent that has a tag in Agenty, waits for all of them, and lands one file for each. An agent that
gets the tag is in the next run, without a change to the DAG.

- `list_agents` asks Agenty which agents have the tag. If none has it, the other tasks are skipped.
- `one_agent` is mapped over them: a job and a file for each agent.

Needs the connection `agenty_default`. The tag and the folder can be said when the DAG is triggered.
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

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))


@task
def list_agents(params: dict[str, Any]) -> list[str]:
    """Return the ids of the agents that have the tag."""
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    with AgentyHook() as hook:
        return [agent.agent_id for agent in hook.list_agents(tag=params["tag"])]


@task_group
def one_agent(agent_id: str) -> None:
    """Start a job, wait for it and land its file."""
    job = AgentyStartJobOperator(
        task_id="job", agent_id=agent_id, wait_for_completion=True, deferrable=True, poll_interval=3
    )
    # A path that ends in a slash gets a file named after agent, job and collection.
    AgentyExportOperator(task_id="land", job_id=job.output, path="{{ params.folder }}/{{ run_id }}/")


with DAG(
    "agenty_tagged_agents",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "tag": Param("daily", type="string", description="The tag, upper and lower case as in Agenty"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the files go: a local path or a URL"),
    },
    tags=["agenty", "example"],
):
    one_agent.expand(agent_id=list_agents())
