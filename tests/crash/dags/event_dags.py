"""DAGs that run when a job completes; an asset of their own each, so that what it remembers is theirs."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger


@task
def payloads(triggering_asset_events):
    return [event.extra["payload"] for events in triggering_asset_events.values() for event in events]


for agent_id in ("events1", "events2"):
    trigger = AgentyJobEventTrigger(agent_id, poll_interval=1)
    asset = Asset(f"jobs_of_{agent_id}", watchers=[AssetWatcher(name="jobs", trigger=trigger)])
    with DAG(f"on_completion_of_{agent_id}", schedule=[asset]) as dag:
        payloads()
    globals()[dag.dag_id] = dag

# The example as it stands, for an agent and a folder of this Airflow's own.
os.environ["AGENTY_AGENT_ID"] = "events3"
os.environ["AGENTY_LANDING_FOLDER"] = str(Path(os.environ["AIRFLOW_HOME"], "landed"))
runpy.run_path(str(Path(__file__).parents[3] / "example_dags" / "agenty_on_completion.py"))
