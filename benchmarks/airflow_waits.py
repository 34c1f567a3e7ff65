"""What the benchmarks of waiting in a whole Airflow share: the Airflow, the sandbox, and what is read of both."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_api import Run, TaskInstance
from tests.airflow_harness.airflow_instance import AirflowInstance

AGENT = "benchmark"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Track:
    """
    An Airflow whose connection leads to a sandbox whose jobs stay in their state until told otherwise.

    :param airflow: the Airflow.
    :param sandbox: the sandbox.
    """

    airflow: AirflowInstance
    sandbox: Sandbox

    def start_jobs(self, count: int) -> list[int]:
        """Start jobs that run until :meth:`complete`."""
        job_ids = [self.sandbox.start_job(AGENT) for _ in range(count)]
        for job_id in job_ids:
            self.sandbox.set_status(job_id, "running")
        return job_ids

    def complete(self, job_id: int) -> None:
        self.sandbox.set_status(job_id, "completed")

    def wait_for_states(
        self, run: Run, prefix: str, count: int, states: set[str], patience: float
    ) -> list[TaskInstance]:
        """
        Wait until so many tasks of a run are in one of some states.

        :param run: the run.
        :param prefix: how the tasks' ids begin.
        :param count: how many tasks.
        :param states: the states.
        :param patience: seconds after which it is given up.
        """
        ends = time.monotonic() + patience
        while True:
            tasks = [task for task in self.airflow.task_instances(run) if task.task_id.startswith(prefix)]
            if len(tasks) == count and all(task.state in states for task in tasks):
                return tasks
            for task in tasks:
                if task.state == "failed" or time.monotonic() > ends:
                    log = self.airflow.task_log(run, task.task_id, map_index=task.map_index)
                    raise SystemExit(f"{task.label} is {task.state}, not {states}:\n{log[-3000:]}")
            time.sleep(0.5)

    def worker_starts(self, run: Run) -> int:
        """Return how many processes of workers the tasks of a run took: Airflow notes each in its audit log."""
        query = {"dag_id": run.dag_id, "run_id": run.run_id, "event": "running", "limit": 1}
        return int(self.airflow.api._call("GET", "eventLogs", params=query)["total_entries"])

    def cpu_seconds(self) -> float:
        """Return what Airflow's processes have used, those included that have ended."""
        components = (
            self.airflow.api_server,
            self.airflow.scheduler,
            self.airflow.dag_processor,
            self.airflow.triggerer,
        )
        return sum(_cpu_seconds(pid) for component in components for pid in component.processes())


@contextmanager
def track(folder: Path, dag: str, parallelism: int) -> Iterator[Track]:
    """
    Run an Airflow with one DAG file, and a sandbox.

    :param folder: for Airflow's home.
    :param dag: the DAG file's text.
    :param parallelism: how many tasks may be in workers at once.
    """
    dags = folder / "dags"
    dags.mkdir()
    (dags / "waits.py").write_text(dag)
    with (
        Sandbox({AGENT: [{"name": "A book"}]}, manual=True) as sandbox,
        AirflowInstance(
            folder / "airflow",
            dags_folder=dags,
            env={"AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json},
            settings={"core": {"parallelism": str(parallelism), "max_active_tasks_per_dag": str(parallelism)}},
        ) as airflow,
    ):
        yield Track(airflow, sandbox)


def seconds_of(moment: str) -> float:
    """Return a time of Airflow's REST API or logs as seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp()


def noted_in_log(files: list[Path], event: str) -> float | None:
    """Return when a task's log first has an event."""
    for file in files:
        for line in file.read_text().splitlines():
            if event in line:
                return seconds_of(json.loads(line)["timestamp"])
    return None


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # User and system time, its own and that of children that have ended.
    return sum(int(field) for field in fields[11:15]) / TICKS
