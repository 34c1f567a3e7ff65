"""A real Airflow, 3 or 2, that is quick to notice what has gone."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_2 import Airflow2
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.features import IS_AIRFLOW_3
from tests.shown_lines import shows_lines

SEED = int(os.environ.get("AGENTY_STORM_SEED") or SystemRandom().randrange(1_000_000))
MINUTES = float(os.environ.get("AGENTY_STORM_MINUTES") or 3)

SETTINGS = {
    # Variables can be looked up in the database then.
    "core": {"fernet_key": ""},
    "agenty": {"start_memory": os.environ.get("AGENTY_START_MEMORY", "variables")},
    "triggerer": {"job_heartbeat_sec": "1", "triggerer_health_check_threshold": "8"},
}
SCHEDULER = {
    "scheduler_heartbeat_sec": "1",
    "scheduler_health_check_threshold": "8",
    "orphaned_tasks_check_interval": "8",
}


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    # A key that is written in another way in a URL, in JSON and in HTML.
    with Sandbox({}, key=f'k3y+/"\\&%<{secrets.token_hex(16)}') as sandbox:
        yield sandbox


@pytest.fixture
def connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """The connection, for the hook in this process too."""
    connection = json.dumps({**sandbox.connection, "extra": {"timeout": 6}})
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", connection)
    return connection


@pytest.fixture
def airflow(connection: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home, dags = tmp_path_factory.mktemp("airflow"), Path(__file__).parent / "dags"
    env = {"AIRFLOW_CONN_AGENTY_DEFAULT": connection}
    if IS_AIRFLOW_3:
        heartbeat = "task_instance_heartbeat"
        settings = {
            **SETTINGS,
            "scheduler": {
                **SCHEDULER,
                f"{heartbeat}_sec": "1",
                f"{heartbeat}_timeout": "10",
                f"{heartbeat}_timeout_detection_interval": "2",
            },
        }
        with AirflowInstance(home, dags_folder=dags, env=env, settings=settings) as airflow:
            airflow.wait_for_dag("deferred")
            yield airflow
    else:
        zombies = {
            "job_heartbeat_sec": "1",
            "scheduler_zombie_task_threshold": "10",
            "zombie_detection_interval": "2",
        }
        settings = {**SETTINGS, "scheduler": {**SCHEDULER, **zombies}}
        with Airflow2(home, dags_folder=dags, env=env, settings=settings) as airflow:
            airflow.wait_for_dag("deferred")
            yield airflow


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Show a line at once: the storm takes minutes."""
    return shows_lines(pytestconfig)
