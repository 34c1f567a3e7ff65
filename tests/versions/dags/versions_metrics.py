"""Jobs that are started, waited for in both ways, reused, stopped and landed: test_metrics.py counts them."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator, AgentyStopJobOperator

AGENT, OTHER_AGENT, LONG_AGENT = "45l0wewqzk", "w9qmlp5475", "l0ng45wewq"

with DAG("versions_metrics", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    waiting = {"wait_for_completion": True, "poll_interval": 0.2}
    in_worker = AgentyStartJobOperator(task_id="in_worker", agent_id=AGENT, deferrable=False, **waiting)
    deferred = AgentyStartJobOperator(task_id="deferred", agent_id=OTHER_AGENT, deferrable=True, **waiting)
    reused = AgentyStartJobOperator(task_id="reused", agent_id=AGENT, reuse_completed_within=timedelta(hours=1))
    long = AgentyStartJobOperator(task_id="long", agent_id=LONG_AGENT)
    joined = AgentyStartJobOperator(task_id="joined", agent_id=LONG_AGENT, if_running="join")
    stop = AgentyStopJobOperator(task_id="stop", job_id=long.output)
    land = AgentyExportOperator(
        task_id="land", job_id=in_worker.output, path=os.environ.get("AGENTY_SMOKE_FOLDER", "") + "/landed.csv"
    )
    in_worker >> deferred >> reused >> long >> joined >> stop >> land
