"""
### The rows of a result, in Python

Runs a job and works through its result row by row with `AgentyHook` inside a `@task`. The rows are streamed: pages are
fetched while earlier ones are worked on, and no more than a few are in memory, however large the result is.

Here the books that cost no more than a limit are written to a file of JSON lines.

Needs the connection `agenty_default`. Agent, limit and folder can be said when the DAG is triggered.
"""

from __future__ import annotations

import json
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

from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))


@task
def keep_affordable_books(job_id: int, params: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Write the books within the limit, and return how many rows there were and how many were kept."""
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    path = Path(params["folder"], f"{run_id}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    rows = kept = 0
    with partial.open("w", encoding="utf-8") as file:
        for row in AgentyHook().iter_result(job_id):
            rows += 1
            if float(row["price"].lstrip("£")) <= params["limit"]:
                kept += 1
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    partial.replace(path)
    # What a task returns goes into XCom: figures and a path, never the rows.
    return {"path": str(path), "rows": rows, "kept": kept}


with DAG(
    "agenty_taskflow",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="An agent whose result has a price in pounds"),
        "limit": Param(20.0, type="number", description="The highest price, in pounds"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the file goes: a local folder"),
    },
    tags=["agenty", "example"],
):
    job_id = AgentyStartJobOperator(
        task_id="run_job",
        agent_id="{{ params.agent_id }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=3,
    ).output
    keep_affordable_books(job_id)
