"""
### From an agent to a table in PostgreSQL

Runs a job, lands its result as a CSV file, and copies the file into the table `books` with `COPY`.

- `load` first compares the file's check sum with the one in the XCom, so it loads the file that was landed.
- One transaction removes the rows of this run and adds the new ones. A retry or a clear loads nothing twice.
- The transaction is rolled back if PostgreSQL has not taken as many rows as were landed.

Needs the connections `agenty_default` and `postgres_default`, the package `apache-airflow-providers-postgres`, and
PostgreSQL 15 or later. Agent and folder can be said when the DAG is triggered.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

try:
    from airflow.sdk import DAG, ObjectStoragePath, Param, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.io.path import ObjectStoragePath
    from airflow.models.param import Param

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator

LANDING_FOLDER = os.environ.get("AGENTY_LANDING_FOLDER", str(Path.home() / "agenty"))

CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS books (run_id text NOT NULL, name text, price text, image text, details_page_url text)
"""
CREATE_COPY = """
CREATE TEMPORARY TABLE copied ON COMMIT DROP AS SELECT name, price, image, details_page_url FROM books WITH NO DATA
"""
# MATCH refuses a file whose columns have other names, or another order. Before PostgreSQL 15 it is HEADER alone.
COPY = "COPY copied FROM STDIN (FORMAT csv, HEADER MATCH)"
INSERT = "INSERT INTO books SELECT %s, name, price, image, details_page_url FROM copied"


@task
def load(landed: dict[str, Any], run_id: str) -> int:
    """Copy the landed file into the table, in place of what this run loaded before; return the number of rows."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    with (
        ObjectStoragePath(landed["path"]).open("rb") as file,
        closing(PostgresHook("postgres_default").get_conn()) as connection,
        connection,  # commits, or rolls back after an error
        connection.cursor() as cursor,
    ):
        if hashlib.file_digest(file, "sha256").hexdigest() != landed["sha256"]:
            raise ValueError(f"{landed['path']} has changed since it was landed. Land it again.")
        file.seek(0)
        cursor.execute(CREATE_TABLE)
        cursor.execute(CREATE_COPY)
        copied = copy(cursor, file)
        if copied != landed["rows"]:
            raise ValueError(f"PostgreSQL took {copied} rows of {landed['path']}, which has {landed['rows']}.")
        cursor.execute("DELETE FROM books WHERE run_id = %s", [run_id])
        cursor.execute(INSERT, [run_id])
    return copied


def copy(cursor: Any, file: BinaryIO) -> int:
    """Copy a CSV file into the temporary table; return the number of rows."""
    if hasattr(cursor, "copy_expert"):  # psycopg2, which Airflow's PostgreSQL provider uses before Airflow 3.3
        cursor.copy_expert(COPY, file)
    else:
        with cursor.copy(COPY) as target:
            shutil.copyfileobj(file, target)
    return int(cursor.rowcount)


with DAG(
    "agenty_to_postgres",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    params={
        "agent_id": Param("45l0wewqzk", type="string", description="An agent whose result has the table's columns"),
        "folder": Param(LANDING_FOLDER, type="string", description="Where the file goes: a local path or a URL"),
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
    land = AgentyExportOperator(task_id="land", job_id=start.output, path="{{ params.folder }}/{{ run_id }}.csv")
    load(land.output)
