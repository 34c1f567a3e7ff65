"""A real Airflow and a sandbox for all tests here, and the figures that each of them is about."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from airflow_provider_agenty.airflow_compat import HAS_TASK_STATE_STORE
from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_api import Run
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.features import IS_AIRFLOW_3, IS_AIRFLOW_3_0

START_MEMORY = os.environ.get("AGENTY_START_MEMORY", "variables")
"""What a retry finds its job by, before Airflow 3.3."""

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.crash)
            item.add_marker(pytest.mark.timeout(400))
            if (item.path.name == "test_airflow_2.py") == IS_AIRFLOW_3:
                item.add_marker(pytest.mark.skip(reason="is about the other Airflow: 2 or 3"))
    # It reads all that the others have written.
    items.sort(key=lambda item: item.path.name == "test_secrets.py")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    # A key that is written in another way in a URL, in JSON and in HTML.
    with Sandbox(manual=True, key=f'k3y+/"\\&%<{secrets.token_hex(16)}') as sandbox:
        yield sandbox


@dataclass
class SecretsBackend:
    """What decides how Airflow's secrets backend behaves: a file."""

    file: Path

    @property
    def settings(self) -> dict[str, str]:
        kwargs = json.dumps({"behaviour": str(self.file)})
        return {"backend": "tests.crash.bad_secrets_backend.BadSecretsBackend", "backend_kwargs": kwargs}

    @contextlib.contextmanager
    def behaves(self, behaviour: str) -> Iterator[None]:
        """Have it ``raise``, or take so many seconds, when it is asked for a Variable."""
        self.file.write_text(behaviour)
        try:
            yield
        finally:
            self.file.unlink()


@pytest.fixture(scope="session")
def secrets_backend(tmp_path_factory: pytest.TempPathFactory) -> SecretsBackend:
    return SecretsBackend(tmp_path_factory.mktemp("secrets") / "behaviour")


@pytest.fixture(scope="session")
def airflow(
    sandbox: Sandbox, secrets_backend: SecretsBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowInstance]:
    with AirflowInstance(
        tmp_path_factory.mktemp("airflow"),
        dags_folder=Path(__file__).parent / "dags",
        env={
            "AIRFLOW_CONN_AGENTY_DEFAULT": json.dumps({**sandbox.connection, "extra": {"timeout": 6}}),
            "AIRFLOW_CONN_AGENTY_QUERY": json.dumps({**sandbox.connection, "extra": {"timeout": 6, "auth": "query"}}),
        },
        settings={
            "scheduler": {
                "task_instance_heartbeat_sec": "1",
                "task_instance_heartbeat_timeout": "20",
                "task_instance_heartbeat_timeout_detection_interval": "1",
            },
            "logging": {"logging_level": "DEBUG"},
            "agenty": {"start_memory": START_MEMORY},
            "secrets": secrets_backend.settings,
            # Variables can be looked up in the database then.
            "core": {"fernet_key": ""},
        },
    ) as airflow:
        for dag_id in ("sync", "deferred", "export"):
            airflow.wait_for_dag(dag_id)
        yield airflow


@dataclass
class Scenario:
    """One run of a DAG, for an agent of its own, and what is done to it."""

    airflow: AirflowInstance
    sandbox: Sandbox
    agent_id: str
    task_id: str = "start"
    map_index: int = -1
    run: Run | None = None

    def begin(self, dag_id: str, **conf: Any) -> None:
        self.run = self.airflow.trigger(dag_id, {"agent_id": self.agent_id, **conf})

    # What is seen

    @property
    def job_ids(self) -> list[int]:
        return [job["job_id"] for job in self.sandbox.jobs if job["agent_id"] == self.agent_id]

    @property
    def starts(self) -> int:
        return len([job_id for job_id in self.sandbox.started_jobs if job_id in self.job_ids])

    @property
    def stops(self) -> int:
        return len([job_id for job_id in self.sandbox.stopped_jobs if job_id in self.job_ids])

    @property
    def state(self) -> str | None:
        return self.airflow.task_instance(self.run, self.task_id, map_index=self.map_index).state

    @property
    def is_retried(self) -> bool:
        task = self.airflow.task_instance(self.run, self.task_id, map_index=self.map_index)
        return task.state == "up_for_retry" or task.try_number > 1

    @property
    def log(self) -> str:
        tries = self.airflow.task_instance(self.run, self.task_id, map_index=self.map_index).try_number
        return "\n".join(
            self.airflow.task_log(self.run, self.task_id, number, map_index=self.map_index)
            for number in range(1, tries + 1)
        )

    def returned(self) -> Any:
        return self.airflow.xcom(self.run, self.task_id, map_index=self.map_index)

    def link(self) -> str | None:
        return self.airflow.extra_links(self.run, self.task_id, map_index=self.map_index).get("Agenty agent")

    def agenty(self, method: str, path: str, **arguments: Any) -> Any:
        """Call the API as somebody else does."""
        headers = {"X-Agenty-ApiKey": self.sandbox.key}
        return requests.request(method, self.sandbox.url + path, headers=headers, timeout=30, **arguments).json()

    # What is done

    def reaches(self, *states: str) -> None:
        self.airflow.wait_for_task(self.run, self.task_id, set(states), map_index=self.map_index, timeout=120)

    def is_asked_for(self, job_id: int) -> None:
        """Wait until the task, or its trigger, has asked for the job: it waits then."""
        seen = len(self._polls(job_id))
        _until(lambda: len(self._polls(job_id)) > seen, f"job {job_id} is not asked for")

    def _polls(self, job_id: int) -> list[Any]:
        return [request for request in self.sandbox.requests if request.path == f"/jobs/{job_id}"]

    def has_started(self, number: int = 1) -> int:
        _until(lambda: len(self.job_ids) >= number, f"agent {self.agent_id} has no {number} jobs")
        return self.job_ids[number - 1]

    def runs_its_job(self, number: int = 1) -> int:
        job_id = self.has_started(number)
        self.sandbox.set_status(job_id, "running", pages_total=10, pages_processed=3)
        self.is_asked_for(job_id)
        return job_id

    def kill_task(self) -> None:
        pids = self.airflow.pids_of_task(self.run, self.task_id, map_index=self.map_index)
        assert len(pids) == 1, pids
        self.kill(pids[0])

    def kill(self, pid: int) -> None:
        """Kill the process of a task."""
        if IS_AIRFLOW_3_0:
            # It fails a task whose process alone was killed, retries or not. So the worker that would tell goes first.
            os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)

    def task_process(self) -> int:
        _until(
            lambda: self.airflow.pids_of_task(self.run, self.task_id, map_index=self.map_index),
            "the task has no process",
        )
        return self.airflow.pids_of_task(self.run, self.task_id, map_index=self.map_index)[0]

    def complete(self, job_id: int) -> None:
        self.sandbox.set_status(job_id, "completed", pages_processed=10)

    def stays(self, seconds: float = 3.0) -> None:
        """Let pass the time in which a stop that must not be sent would have been."""
        time.sleep(seconds)

    @contextlib.contextmanager
    def triggerer_hangs(self) -> Iterator[None]:
        """Have the triggerer hold still while the block runs, from a moment in which it does not hold the database."""
        while True:
            with self.airflow.triggerer.hanging():
                if self._database_is_free():
                    yield
                    return
            time.sleep(0.2)

    def _database_is_free(self) -> bool:
        with contextlib.closing(sqlite3.connect(self.airflow.home / "airflow.db", timeout=2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            database.rollback()
            return True

    def stored(self, key: str) -> bool:
        """Whether the start's memory has a key, looked up where no answer of the API server is needed."""
        database = sqlite3.connect(f"file:{self.airflow.home}/airflow.db?mode=ro", uri=True, timeout=10)
        try:
            if HAS_TASK_STATE_STORE:
                rows = database.execute(
                    "select count(*) from task_state_store where run_id = ? and key = ?", (self.run.run_id, key)
                )
                return bool(rows.fetchone()[0])
            rows = database.execute("select val from variable where description like ?", (f"%run {self.run.run_id},%",))
            return any(key in json.loads(value) for (value,) in rows)
        finally:
            database.close()


def _until(condition: Callable[[], Any], problem: str, timeout: float = 120.0) -> None:
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, problem
        time.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., None]:
    return _until


@pytest.fixture
def scenario(airflow: AirflowInstance, sandbox: Sandbox) -> Iterator[Scenario]:
    agent_id = f"crash{next(_numbers)}"
    sandbox.set_agent(agent_id, [{"name": "A book", "price": "£51.77"}] * 3)
    scenario = Scenario(airflow, sandbox, agent_id)
    yield scenario
    for job_id in scenario.job_ids:
        scenario.complete(job_id)
