"""
### From an agent to Parquet, and a query with DuckDB

Runs a job, lands its result as a Parquet file, and asks DuckDB for the ten dearest books, which go into a CSV file
beside it.

DuckDB reads the file where it is, column by column, so a result larger than the worker's memory is no problem. `query`
fails if DuckDB sees another number of rows than was landed.

Needs the connection `agenty_default`, and the packages `duckdb` and `pyarrow` where tasks run. Agent and folder can be
said when the DAG is triggered.
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

from airflow_provider_agenty.operators.agenty import AgentyResultOperator, AgentyStartJobOperator

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))

DEAREST = """
SELECT name, replace(price, '£', '')::DECIMAL(8, 2) AS pounds FROM books ORDER BY pounds DESC, name LIMIT 10
"""


@task
def query(landed: dict[str, Any]) -> str:
    """Write the dearest books beside the landed file; return the path."""
    import duckdb

    with duckdb.connect() as database:
        database.read_parquet(landed["path"]).create_view("books")
        rows = database.table("books").count("*").fetchone()[0]
        if rows != landed["rows"]:
            raise ValueError(f"DuckDB sees {rows} rows in {landed['path']}, but {landed['rows']} were landed.")
        path = str(Path(landed["path"]).with_suffix(".dearest.csv"))
        database.sql(DEAREST).write_csv(path, header=True)
    return path


with DAG(
    "agenty_to_duckdb",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="An agent whose result has a price in pounds"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the files go: a local folder"),
    },
    tags=["agenty", "example"],
):
    start = AgentyStartJobOperator(
        task_id="start",
        agent_id="{{ params.agent_id }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=3,
    )
    land = AgentyResultOperator(
        task_id="land", job_id=start.output, path="{{ params.folder }}/{{ run_id }}.parquet", format="parquet"
    )
    query(land.output)
