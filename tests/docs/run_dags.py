"""
Runs the DAGs of a folder as ``dag.test()`` does, and says how each ended, in a process of its own.

Each DAG has a sandbox of its own: an agent's input outlives a run. ``python run_dags.py`` takes the folder from
Airflow's ``dags_folder``. The last line it writes is JSON: what could not be imported, and for each file the state of
each DAG run and of its tasks.
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


def main() -> None:
    bag = DagBag()
    ended: dict[str, dict[str, Any]] = {}
    for pool in {task.pool for dag in bag.dags.values() for task in dag.tasks} - {Pool.DEFAULT_POOL_NAME}:
        Pool.create_or_update_pool(pool, slots=5, description="of the pages", include_deferred=True)
    for dag in bag.dags.values():
        with Sandbox(seconds=0) as sandbox:
            os.environ["AIRFLOW_CONN_AGENTY_DEFAULT"] = sandbox.connection_json
            run = dag.test()
        tasks = {task.task_id: str(getattr(task.state, "value", task.state)) for task in run.get_task_instances()}
        ended.setdefault(Path(dag.fileloc).name, {})[dag.dag_id] = {
            "state": str(getattr(run.state, "value", run.state)),
            "tasks": tasks,
        }
    errors = {Path(path).name: error for path, error in bag.import_errors.items()}
    print(json.dumps({"errors": errors, "ended": ended}))


if __name__ == "__main__":
    main()
