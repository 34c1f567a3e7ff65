"""What test_smoke.py runs in each Airflow: every operator, waiting in every mode, and what Airflow tells a task."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import airflow

try:
    from airflow.sdk import DAG, BaseOperator
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.baseoperator import BaseOperator

from airflow_provider_agenty.airflow_compat import current_task_state
from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator,
    AgentyStartJobOperator,
    AgentyStopJobOperator,
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.waiting.task_state import is_retry

AGENT, OTHER_AGENT, LONG_AGENT, AGENT_WITH_URLS = "45l0wewqzk", "w9qmlp5475", "l0ng45wewq", "lmqdjwd972"
FOLDER = os.environ.get("AGENTY_SMOKE_FOLDER", "")


class TellOperator(BaseOperator):
    """Writes down what Airflow says of the running task."""

    def execute(self, context: Any) -> None:
        """Write it."""
        told = {"state": current_task_state(context["ti"]), "is_retry": is_retry(context)}
        Path(FOLDER, "told.json").write_text(json.dumps(told))


with DAG("versions_smoke", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    TellOperator(task_id="tell", retries=2)

    start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    wait = AgentyJobSensor(task_id="wait", job_id=start.output, deferrable=True, poke_interval=0.3)
    land = AgentyExportOperator(task_id="land", job_id=start.output, path=f"{FOLDER}/landed.csv")
    poke = AgentyJobSensor(task_id="poke", job_id=start.output, poke_interval=0.3)
    stop = AgentyStopJobOperator(task_id="stop", job_id=start.output)
    start >> wait >> land >> poke >> stop

    long_job = AgentyStartJobOperator(task_id="start_long", agent_id=LONG_AGENT)
    # In `dags test` of 3.0 Airflow's own sensor fails at its second poke: a time reaches it as text.
    if not airflow.__version__.startswith("3.0."):
        AgentyJobSensor(task_id="reschedule", job_id=long_job.output, mode="reschedule", poke_interval=0.3)

    waiting = {"wait_for_completion": True, "poll_interval": 0.3, "timeout": timedelta(hours=1)}
    AgentyStartJobOperator(task_id="deferred", agent_id=AGENT, deferrable=True, **waiting)
    in_worker = AgentyStartJobOperator.partial(task_id="in_worker", deferrable=False, **waiting).expand(
        agent_id=[AGENT, OTHER_AGENT]
    )
    AgentyExportOperator.partial(task_id="mapped", path=f"{FOLDER}/mapped/").expand(job_id=in_worker.output)
    with_urls = AgentyStartJobOperator.partial(
        task_id="with_urls", agent_id=AGENT_WITH_URLS, deferrable=False, max_active_tis_per_dag=1, **waiting
    ).expand(urls=[["https://example.com/{{ 1 }}", "https://example.com/2"], "https://example.com/3"])
    AgentyExportOperator.partial(task_id="of_urls", path=f"{FOLDER}/of_urls/").expand(job_id=with_urls.output)
