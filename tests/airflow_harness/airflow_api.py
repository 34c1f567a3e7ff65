"""The calls of Airflow's REST API that drive and observe DAG runs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

USER = "admin"

_TIMEOUT_SECONDS = 60.0
"""For one call. On a busy machine the first one of a kind has taken half a minute."""


class AirflowApiError(Exception):
    """
    Airflow refused a call.

    :param status: the HTTP status; 0 when there was no answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Run:
    """One run of a DAG."""

    dag_id: str
    run_id: str


@dataclass(frozen=True)
class TaskInstance:
    """
    What Airflow says about one task of a run.

    :param raw: the whole answer.
    """

    id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    max_tries: int
    raw: dict[str, Any]

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> TaskInstance:
        """Read a task instance as the API shows it."""
        names = ("id", "task_id", "map_index", "state", "try_number", "max_tries")
        return cls(**{name: answer[name] for name in names}, raw=answer)

    @property
    def label(self) -> str:
        """The task's id, with its map index if it has one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


def _was_rolled_back(error: BaseException) -> bool:
    # Airflow notes each write in its audit log first, and does so in the event loop. While that waits for SQLite's
    # lock, a request that holds the lock can't end: after 5 s the write is answered with 500, and nothing was done.
    return isinstance(error, AirflowApiError) and error.status == requests.codes.internal_server_error


class AirflowApi:
    """
    A client of an API server on this machine.

    :param port: the server's.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.password = secrets.token_urlsafe(24)
        """Of the user ``admin``."""
        self._session = requests.Session()
        # Neither a proxy nor netrc has any business with a server on this machine.
        self._session.trust_env = False

    @retry(retry=retry_if_exception(_was_rolled_back), wait=wait_fixed(0.5), stop=stop_after_delay(60), reraise=True)
    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """
        Make any call of the API; for a minute again and again while Airflow can't use its database.

        :param path: what comes after ``/api/v2/``.
        :param arguments: those of `requests.request`.
        :raises AirflowApiError: for any status but success, and when there is no answer.
        """
        if "Authorization" not in self._session.headers:
            token = self._request("POST", "auth/token", json={"username": USER, "password": self.password})
            self._session.headers["Authorization"] = f"Bearer {token['access_token']}"
        return self._request(method, f"api/v2/{path}", **arguments)

    def health(self) -> dict[str, Any] | None:
        """Return each component's health, or None while the API server does not answer."""
        return self._if_there("api/v2/monitor/health")

    def execution_api_answers(self) -> bool | None:
        """Return True when the part of the API that tasks use answers, None while it does not."""
        return None if self._if_there("execution/health") is None else True

    def dag_is_known(self, dag_id: str) -> bool:
        """Return whether the DAG has been parsed and can be triggered."""
        return self._if_found(f"dags/{_part(dag_id)}/details") is not None

    def import_errors(self) -> list[str]:
        """Return the trace of each DAG file that could not be imported."""
        answer = self.call("GET", "importErrors")
        return [f"{error['filename']}:\n{error['stack_trace']}" for error in answer["import_errors"]]

    def run_state(self, run: Run) -> str:
        """Return the state of a run, such as ``running`` or ``success``."""
        return str(self.call("GET", _run_path(run))["state"])

    def task_instances(self, run: Run) -> list[TaskInstance]:
        """Return every task instance of a run, mapped ones one by one."""
        answer = self.call("GET", f"{_run_path(run)}/taskInstances", params={"limit": 1000})
        return [TaskInstance.from_answer(item) for item in answer["task_instances"]]

    def task_instance(self, run: Run, task_id: str, *, map_index: int = -1) -> TaskInstance:
        """Return one task instance."""
        path = _task_path(run, task_id)
        return TaskInstance.from_answer(self.call("GET", path if map_index < 0 else f"{path}/{map_index}"))

    def clear(self, run: Run, task_id: str) -> list[str]:
        """
        Clear a task so that it runs again, and return the ids of the tasks that were cleared.

        If the task is the last of its run, wait for the run first. A task that is cleared just before the scheduler
        ends the run is never scheduled again.
        """
        body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [task_id], "only_failed": False}
        answer = self.call("POST", f"dags/{_part(run.dag_id)}/clearTaskInstances", json=body)
        return [item["task_id"] for item in answer["task_instances"]]

    def set_task_state(self, run: Run, task_id: str, state: str) -> None:
        """Mark a task ``failed``, ``success`` or ``skipped``, as a person does in the UI."""
        self.call("PATCH", _task_path(run, task_id), json={"new_state": state})

    def xcom(self, run: Run, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value of an XCom, or None when there is none."""
        path = f"{_task_path(run, task_id)}/xcomEntries/{_part(key)}"
        answer = self._if_found(path, params={"map_index": map_index, "deserialize": "false"})
        return None if answer is None else answer["value"]

    def task_log(self, run: Run, task_id: str, try_number: int = 1, *, map_index: int = -1) -> str:
        """
        Return the log of one try, a line per entry: level, event and what came with an exception.

        What the triggerer wrote is in it too.
        """
        path = f"{_task_path(run, task_id)}/logs/{try_number}"
        answer = self.call("GET", path, params={"map_index": map_index, "full_content": "true"})
        return "\n".join(log_line(entry) for entry in answer["content"])

    def extra_links(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, str | None]:
        """Return the address behind each of a task's buttons, by the button's name."""
        answer = self.call("GET", f"{_task_path(run, task_id)}/links", params={"map_index": map_index})
        return dict(answer["extra_links"])

    def _if_there(self, path: str) -> dict[str, Any] | None:
        try:
            return self._request("GET", path)
        except AirflowApiError:
            return None

    def _if_found(self, path: str, **arguments: Any) -> dict[str, Any] | None:
        try:
            return self.call("GET", path, **arguments)
        except AirflowApiError as error:
            if error.status == requests.codes.not_found:
                return None
            raise

    def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._session.request(method, f"{self.url}/{path}", timeout=_TIMEOUT_SECONDS, **arguments)
        except requests.RequestException as error:
            raise AirflowApiError(f"Airflow did not answer {method} {path}: {type(error).__name__}.", 0) from error
        if not answer.ok:
            told = f"Airflow answered {method} {path} with {answer.status_code}: {answer.text[:2000]}"
            raise AirflowApiError(told, answer.status_code)
        return dict(answer.json())


def log_line(entry: dict[str, Any] | str) -> str:
    """Write one entry of a task log as a person would read it."""
    if isinstance(entry, str):
        return entry
    level = str(entry.get("level") or "")
    line = " ".join(filter(None, [level.upper(), str(entry.get("event", ""))]))
    details = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in entry.get("error_detail") or []]
    return "\n".join([line, *details])


def _part(value: str) -> str:
    return quote(value, safe="")


def _run_path(run: Run) -> str:
    return f"dags/{_part(run.dag_id)}/dagRuns/{_part(run.run_id)}"


def _task_path(run: Run, task_id: str) -> str:
    return f"{_run_path(run)}/taskInstances/{_part(task_id)}"
