"""The calls of Airflow's REST API that drive and observe DAG runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

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
        return cls(
            id=answer["id"],
            task_id=answer["task_id"],
            map_index=answer["map_index"],
            state=answer["state"],
            try_number=answer["try_number"],
            max_tries=answer["max_tries"],
            raw=answer,
        )

    @property
    def label(self) -> str:
        """The task's id, with its map index if it has one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class AirflowApi:
    """
    A client of one API server.

    :param url: the server's address.
    :param user: who calls.
    :param password: that user's password.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        self._credentials = {"username": user, "password": password}
        self._session = requests.Session()
        # Neither a proxy nor netrc has any business with a server on this machine.
        self._session.trust_env = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def health(self) -> dict[str, Any] | None:
        """Return each component's health, or None while the API server does not answer."""
        try:
            answer = self._session.get(f"{self._url}/api/v2/monitor/health", timeout=_TIMEOUT_SECONDS)
        except (requests.ConnectionError, requests.Timeout):
            return None
        return dict(answer.json()) if answer.ok else None

    def execution_api_answers(self) -> bool | None:
        """Return True when the part of the API that tasks use answers, None while it does not."""
        try:
            answer = self._session.get(f"{self._url}/execution/health", timeout=_TIMEOUT_SECONDS)
        except (requests.ConnectionError, requests.Timeout):
            return None
        return answer.ok or None

    def dag_is_known(self, dag_id: str) -> bool:
        """Return whether the DAG has been parsed and can be triggered."""
        try:
            self._call("GET", f"dags/{_part(dag_id)}/details")
        except AirflowApiError as error:
            if error.status == requests.codes.not_found:
                return False
            raise
        return True

    def import_errors(self) -> list[str]:
        """Return the trace of each DAG file that could not be imported."""
        answer = self._call("GET", "importErrors")
        return [f"{error['filename']}:\n{error['stack_trace']}" for error in answer["import_errors"]]

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> Run:
        """Start a run of a DAG, without a logical date."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        if run_id is not None:
            body["dag_run_id"] = run_id
        answer = self._call("POST", f"dags/{_part(dag_id)}/dagRuns", json=body)
        return Run(dag_id, answer["dag_run_id"])

    def run_state(self, run: Run) -> str:
        """Return the state of a run, such as ``running`` or ``success``."""
        return str(self._call("GET", _run_path(run))["state"])

    def task_instances(self, run: Run) -> list[TaskInstance]:
        """Return every task instance of a run, mapped ones one by one."""
        answer = self._call("GET", f"{_run_path(run)}/taskInstances", params={"limit": 1000})
        return [TaskInstance.from_answer(item) for item in answer["task_instances"]]

    def task_instance(self, run: Run, task_id: str, map_index: int = -1) -> TaskInstance:
        """Return one task instance."""
        return TaskInstance.from_answer(self._call("GET", _task_path(run, task_id, map_index)))

    def clear(self, run: Run, task_id: str, *, map_index: int = -1, include_downstream: bool = False) -> list[str]:
        """
        Clear a task so that it runs again, and return the ids of the tasks that were cleared.

        Where the end of the task also ends the run, wait for the run first: a task that is cleared just before the
        scheduler ends the run is never scheduled again.
        """
        body = {
            "dry_run": False,
            "dag_run_id": run.run_id,
            "task_ids": [task_id if map_index < 0 else [task_id, map_index]],
            "only_failed": False,
            "include_downstream": include_downstream,
            "reset_dag_runs": True,
        }
        answer = self._call("POST", f"dags/{_part(run.dag_id)}/clearTaskInstances", json=body)
        return [item["task_id"] for item in answer["task_instances"]]

    def set_task_state(self, run: Run, task_id: str, state: str, *, map_index: int = -1) -> None:
        """Mark a task ``failed``, ``success`` or ``skipped``, as a person does in the UI."""
        self._call("PATCH", _task_path(run, task_id, map_index), json={"new_state": state})

    def xcom(self, run: Run, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value of an XCom, or None when there is none."""
        path = f"{_run_path(run)}/taskInstances/{_part(task_id)}/xcomEntries/{_part(key)}"
        try:
            return self._call("GET", path, params={"map_index": map_index, "deserialize": "false"})["value"]
        except AirflowApiError as error:
            if error.status == requests.codes.not_found:
                return None
            raise

    def task_log(self, run: Run, task_id: str, try_number: int = 1, *, map_index: int = -1) -> str:
        """
        Return the log of one try, a line per entry: level, event and what came with an exception.

        What the triggerer wrote is in it too.
        """
        path = f"{_run_path(run)}/taskInstances/{_part(task_id)}/logs/{try_number}"
        answer = self._call("GET", path, params={"map_index": map_index, "full_content": "true"})
        return "\n".join(log_line(entry) for entry in answer["content"])

    def rendered_fields(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """Return the templated fields of a task as they were rendered."""
        return dict(self.task_instance(run, task_id, map_index).raw["rendered_fields"])

    def extra_links(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, str | None]:
        """Return the address behind each of a task's buttons, by the button's name."""
        path = f"{_run_path(run)}/taskInstances/{_part(task_id)}/links"
        return dict(self._call("GET", path, params={"map_index": map_index})["extra_links"])

    def state_store(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """Return what a task keeps in its state store (Airflow 3.3 and later)."""
        path = f"{_run_path(run)}/taskInstances/{_part(task_id)}/state-store"
        answer = self._call("GET", path, params={"map_index": map_index, "limit": 1000})
        return {entry["key"]: entry["value"] for entry in answer["task_state_store"]}

    def connection(self, connection_id: str) -> dict[str, Any]:
        """Return a connection as it is stored, without what is secret in it."""
        return self._call("GET", f"connections/{_part(connection_id)}")

    def _log_in(self) -> None:
        answer = self._session.post(f"{self._url}/auth/token", json=self._credentials, timeout=_TIMEOUT_SECONDS)
        if not answer.ok:
            raise AirflowApiError(f"Airflow refused the log-in with {answer.status_code}.", answer.status_code)
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if "Authorization" not in self._session.headers:
            self._log_in()
        try:
            answer = self._session.request(method, f"{self._url}/api/v2/{path}", timeout=_TIMEOUT_SECONDS, **arguments)
        except requests.RequestException as error:
            raise AirflowApiError(f"Airflow did not answer {method} {path}: {type(error).__name__}.", 0) from error
        if not answer.ok:
            raise AirflowApiError(
                f"Airflow answered {method} {path} with {answer.status_code}: {answer.text[:2000]}",
                answer.status_code,
            )
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


def _task_path(run: Run, task_id: str, map_index: int) -> str:
    path = f"{_run_path(run)}/taskInstances/{_part(task_id)}"
    return path if map_index < 0 else f"{path}/{map_index}"
