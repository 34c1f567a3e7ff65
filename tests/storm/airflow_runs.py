"""The calls of the storm to Airflow 3 or 2, repeated where the API server fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests

from tests.airflow_harness.airflow_api import AirflowApiError, Run, TaskInstance
from tests.features import IS_AIRFLOW_3

PATIENCE_SECONDS = 120.0
_NOT_FOUND = 404
_T = TypeVar("_T")


class AirflowRuns:
    """
    The runs of an Airflow.

    :param airflow: an `AirflowInstance`, or an `Airflow2`.
    """

    def __init__(self, airflow: Any) -> None:
        self._airflow = airflow

    def begin(self, run: Run, conf: dict[str, Any]) -> None:
        """Begin a run, once: it has a name, by which it is found if the answer was an error."""
        body = {"dag_run_id": run.run_id, "conf": conf, **({"logical_date": None} if IS_AIRFLOW_3 else {})}

        def begin() -> None:
            try:
                self._airflow.call("POST", f"dags/{run.dag_id}/dagRuns", json=body)
            except (AirflowApiError, requests.RequestException):
                self._airflow.call("GET", f"dags/{run.dag_id}/dagRuns/{run.run_id}")

        _patiently(begin)

    def state(self, run: Run) -> str:
        """Return the state of a run."""
        return str(_patiently(lambda: self._airflow.call("GET", f"dags/{run.dag_id}/dagRuns/{run.run_id}"))["state"])

    def tasks(self, run: Run) -> dict[str, TaskInstance]:
        """Return the tasks of a run, each mapped one by itself."""
        path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances"
        answer = _patiently(lambda: self._airflow.call("GET", path))
        # Airflow 2 knows a task instance by its names only.
        tasks = [TaskInstance.from_answer({"id": "", **each}) for each in answer["task_instances"]]
        return {task.label: task for task in tasks}

    def returned_job(self, run: Run, task: TaskInstance) -> int | None:
        """Return the job id that a task returned."""

        def value() -> Any:
            try:
                return self._airflow.xcom(run, task.task_id, map_index=task.map_index)
            except requests.HTTPError as error:
                if error.response.status_code == _NOT_FOUND:
                    return None
                raise

        found = _patiently(value)
        return None if found is None else int(found)

    def log_files(self, run: Run, task: TaskInstance) -> list[Path]:
        """Return the files in which the tries of a task, and the triggerer for them, wrote their logs."""
        folder = self._airflow.home / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}"
        folder /= f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        return sorted(folder.glob("attempt=*.log*"), key=lambda path: (_try_of(path), path.name))

    def last_log(self, run: Run, task: TaskInstance) -> str:
        """Return the log of a task's last try."""
        files = self.log_files(run, task)
        return "".join(path.read_text(errors="replace") for path in files if _try_of(path) == _try_of(files[-1]))


def _try_of(path: Path) -> int:
    return int(path.name.split("=")[1].split(".")[0])


def _patiently(call: Callable[[], _T]) -> _T:
    """Call until there is an answer: over SQLite the API server fails while somebody else writes for long."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except (AirflowApiError, requests.RequestException):
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)
