"""A start, and what is remembered of it while its task runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

from airflow_provider_agenty.airflow_compat import read_variable
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.waiting.task_state import VariableState


class StartAndTellOperator(AgentyStartJobOperator):
    """Prints what is remembered once the job is started."""

    def execute(self, context: Any) -> int:
        """Start it."""
        job_id = super().execute(context)
        print("remembered:", read_variable(VariableState(context).key) or "{}")
        return job_id


with DAG("versions_memory", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    StartAndTellOperator(task_id="start", agent_id="45l0wewqzk")
