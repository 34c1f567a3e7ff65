"""A DAG that runs when a job of the account completes: its asset has the watcher's events."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger

trigger = AgentyJobEventTrigger(poll_interval=2)
completed = Asset("completed_jobs", watchers=[AssetWatcher(name="jobs", trigger=trigger)])

with DAG("watched_jobs", schedule=[completed], max_active_runs=1):
    EmptyOperator(task_id="note")
