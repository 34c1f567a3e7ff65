"""
Runs the DAGs of a folder as ``dag.test()`` does, and says how each ended, in a process of its own.

Each DAG has a sandbox of its own: an agent's input outlives a run. One with a task for whatever happens before it is
run again, with a job that fails. ``python run_dags.py`` takes the folder from Airflow's ``dags_folder``. The last line
it writes is JSON: what could not be imported, and for each file the state of each DAG run and of its tasks.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.models.pool import Pool

from airflow_provider_agenty.sandbox import Sandbox

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow before 3.2
    from airflow.models.dagbag import DagBag


def run(dag: Any, sandbox: Sandbox) -> dict[str, Any]:
    """Run a DAG against a sandbox, and return how it ended, and each of its tasks."""
    os.environ["AIRFLOW_CONN_AGENTY_DEFAULT"] = sandbox.connection_json
    ended = dag.test()
    tasks = {task.task_id: str(getattr(task.state, "value", task.state)) for task in ended.get_task_instances()}
    return {"state": str(getattr(ended.state, "value", ended.state)), "tasks": tasks}


def main() -> None:
    bag = DagBag()
    ended: dict[str, dict[str, Any]] = {}
    for pool in {task.pool for dag in bag.dags.values() for task in dag.tasks} - {Pool.DEFAULT_POOL_NAME}:
        Pool.create_or_update_pool(pool, slots=5, description="of the pages", include_deferred=True)
    failed: dict[str, dict[str, Any]] = {}
    for dag in bag.dags.values():
        with Sandbox(seconds=0) as sandbox:
            ended.setdefault(Path(dag.fileloc).name, {})[dag.dag_id] = run(dag, sandbox)
        for_whatever_happens = [task.task_id for task in dag.tasks if task.trigger_rule == "all_done"]
        if for_whatever_happens:
            for task in dag.tasks:
                task.retries = 0
            with Sandbox(seconds=0) as sandbox:
                sandbox.plan(outcome="aborted", error="No credit")
                failed.setdefault(Path(dag.fileloc).name, {})[dag.dag_id] = {
                    "for_whatever_happens": for_whatever_happens,
                    **run(dag, sandbox),
                }
    errors = {Path(path).name: error for path, error in bag.import_errors.items()}
    print(json.dumps({"errors": errors, "ended": ended, "failed": failed}))


if __name__ == "__main__":
    main()
