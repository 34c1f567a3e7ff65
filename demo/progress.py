"""What a person is shown of a DAG run while it goes on: changes of state, and what the tasks say for themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.airflow_harness.airflow_api import Run, TaskInstance, log_line
from tests.airflow_harness.airflow_instance import RUN_ENDED, TASK_ENDED, AirflowInstance

_PROVIDER = "airflow_provider_agenty"
_POLL_SECONDS = 0.5
_UNTOLD_STATES = ("scheduled", "queued")


class Progress:
    """
    Follows one run and tells what is new.

    :param airflow: where it runs.
    :param run: the run.
    :param tell: called with each line.
    """

    def __init__(self, airflow: AirflowInstance, run: Run, tell: Callable[[str], None]) -> None:
        self._airflow = airflow
        self._run = run
        self._tell = tell
        self._states: dict[str, str | None] = {}
        self._files: dict[Path, int] = {}

    def follow(self) -> str:
        """
        Tell what happens until the run has ended.

        :return: its state, ``success`` or ``failed``.
        """
        while True:
            state = self._airflow.run_state(self._run)
            for task in sorted(self._airflow.task_instances(self._run), key=lambda task: task.raw["start_date"] or "~"):
                if task.state in TASK_ENDED:
                    self._tell_log(task)
                    self._tell_state(task)
                else:
                    self._tell_state(task)
                    self._tell_log(task)
            if state in RUN_ENDED:
                return state
            self._airflow.check()
            time.sleep(_POLL_SECONDS)

    def errors(self) -> list[str]:
        """Return what the failed tasks left in their logs as reasons, and where the whole logs are."""
        lines = []
        for task in self._airflow.task_instances(self._run):
            if task.state != "failed":
                continue
            files = self._airflow.task_log_files(self._run, task)
            lines.append(f"The task {task.label} failed after {task.try_number} of {task.max_tries + 1} tries:")
            entries = [entry for file in files for entry in _entries(file.read_text(errors="replace").splitlines())]
            lines += [f"  {log_line(entry)}" for entry in entries if _is_error(entry)]
            lines += [f"  The whole log: {file}" for file in files]
        return lines

    def _tell_state(self, task: TaskInstance) -> None:
        before = self._states.get(task.label)
        if task.state is not None and task.state not in (before, *_UNTOLD_STATES):
            self._tell_of(task, task.state)
        self._states[task.label] = task.state

    def _tell_log(self, task: TaskInstance) -> None:
        for file in self._airflow.task_log_files(self._run, task):
            for entry in _entries(self._new_lines(file)):
                if _is_interesting(entry):
                    self._tell_of(task, str(entry["event"]))

    def _new_lines(self, file: Path) -> list[str]:
        with file.open("rb") as log:
            log.seek(self._files.get(file, 0))
            # A line that is still being written is left for the next time.
            whole, newline, _ = log.read().rpartition(b"\n")
        self._files[file] = self._files.get(file, 0) + len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines()

    def _tell_of(self, task: TaskInstance, what: str) -> None:
        self._tell(f"{task.label:<6} {what}")


def _entries(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry


def _is_interesting(entry: dict[str, Any]) -> bool:
    return _PROVIDER in str(entry.get("logger", "")) and entry.get("level") in ("info", "warning", "error")


def _is_error(entry: dict[str, Any]) -> bool:
    return entry.get("level") in ("error", "critical")
