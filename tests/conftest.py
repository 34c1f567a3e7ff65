"""Fixtures that all tests share: an Airflow that is nobody's own, the sandbox, and a task's context."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

# Before anything imports Airflow: it reads its configuration then.
_HOME = tempfile.mkdtemp(prefix="agenty-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": f"{_HOME}/dags",
    "NO_PROXY": "127.0.0.1,localhost",
}
for _name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(_name, None)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from airflow_provider_agenty.api import start_job  # noqa: E402
from airflow_provider_agenty.api.retry import RetryPolicy  # noqa: E402
from tests.features import IS_AIRFLOW_3  # noqa: E402

pytest_plugins = ["airflow_provider_agenty.sandbox.pytest"]

# How long an example takes says something of the machine only.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


class FakeStateStore:
    """Airflow's task state store, for one task instance: what it holds outlives a try."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.written: list[tuple[str, Any]] = []

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any, **_: Any) -> None:
        self.values[key] = value
        self.written.append((key, value))


@dataclass
class FakeTaskInstance:
    """The few things of a task instance that operators touch."""

    dag_id: str = "dag"
    task_id: str = "task"
    run_id: str = "run"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))
    pushed: dict[str, Any] = field(default_factory=dict)
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    state: str = "running"
    first_reschedule_date: datetime | None = None
    stats_tags: dict[str, str] = field(default_factory=dict)

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_reschedule_date

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task_ids: list[str], key: str) -> list[Any]:
        return [self.xcoms[task_id, key] for task_id in task_ids if (task_id, key) in self.xcoms]

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str]]:
        return {self.run_id: {self.task_id: self.state}}


@dataclass
class FakeDagRun:
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(seconds=5))


@pytest.fixture
def make_context(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Make the context of one try of a task."""

    def make(task: Any, *, store: FakeStateStore | None = None, **task_instance: Any) -> dict[str, Any]:
        context = {"task": task, "ti": FakeTaskInstance(**task_instance), "dag_run": FakeDagRun()}
        if store is not None:
            context["task_state_store"] = store
        if not IS_AIRFLOW_3:
            # There sensors look this up in the database.
            monkeypatch.setattr(
                "airflow.sensors.base._orig_start_date", lambda **_: context["ti"].first_reschedule_date
            )
        return context

    return make


@pytest.fixture
def state_store() -> FakeStateStore:
    return FakeStateStore()


@pytest.fixture(autouse=True)
def _outside_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests execute operators themselves, in threads too, which Airflow 2 can only refuse in its main thread."""
    if not IS_AIRFLOW_3:
        monkeypatch.setattr("airflow.models.baseoperator.ExecutorSafeguard._sentinel", SimpleNamespace(callers={}))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waits between attempts be short: their lengths have tests of their own."""
    monkeypatch.setattr(start_job, "POLICY", start_job.StartPolicy(first_wait=0.02))
    # In the order of its fields: attempts, first wait, longest wait, longest asked wait, total.
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (5, 0.02, 0.1, 0.2, 60.0))
