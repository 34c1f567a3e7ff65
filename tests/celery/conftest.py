"""A whole Airflow with two of what there can be two of, an account of agents, and a bucket."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.airflow_harness.processes import ended_by_signals
from tests.airflow_harness.services import Server, ServiceError, postgres, redis
from tests.celery.account import SIZE, Slot, slots_of
from tests.celery.lake import Lake
from tests.celery.losses import RUNS
from tests.celery.stage import SLOTS, Database, Stage
from tests.s3_server import s3_server
from tests.shown_lines import shows_lines

JOB_SECONDS = 20.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.celery)
            item.add_marker(pytest.mark.timeout(4000))


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Show a line at once: the runs take minutes."""
    show = shows_lines(pytestconfig)
    began = time.monotonic()

    def tell(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        show(f"{minutes:2d}:{seconds:02d}  {line}")

    return tell


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Server, Server]]:
    """A PostgreSQL and a Redis."""
    try:
        with ended_by_signals(), postgres() as database, redis() as broker:
            yield database, broker
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def slots() -> list[Slot]:
    """All mapped tasks there will be."""
    return [slot for run_id in RUNS for slot in slots_of(run_id)]


@pytest.fixture(scope="session")
def sandbox(slots: list[Slot]) -> Iterator[Sandbox]:
    with Sandbox({slot.agent_id: slot.content for slot in slots}, seconds=JOB_SECONDS) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def lake(slots: list[Slot]) -> Iterator[Lake]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with s3_server() as endpoint:
        lake = Lake(endpoint, {slot.key: slot.file for slot in slots})
        yield lake
        lake.close()


@pytest.fixture(scope="session")
def stage(
    servers: tuple[Server, Server],
    sandbox: Sandbox,
    lake: Lake,
    slots: list[Slot],
    tell: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    database, broker = servers
    with AirflowInstance(
        tmp_path_factory.mktemp("airflow"),
        dags_folder=Path(__file__).parent / "dags",
        env={
            "AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json,
            "AIRFLOW_CONN_LAKE": json.dumps(lake.connection),
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        settings=settings(database.url, broker.url),
        workers=2,
        schedulers=2,
        triggerers=2,
    ) as airflow:
        stage = Stage(airflow, sandbox, lake, Database(database), broker, slots, tell)
        stage.until(lambda: stage.workers_answer() or None, "both workers answer")
        for dag_id in ("many_jobs", "watched_jobs"):
            airflow.wait_for_dag(dag_id)
        airflow.call("POST", "pools", json={"name": "agenty", "slots": SIZE.pool, "include_deferred": True})
        stage.until(lambda: stage.watcher_remembers() or None, "the watcher begins")
        tell("Airflow is up: PostgreSQL, Redis, API server; schedulers, triggerers and workers, two of each")
        yield stage


def settings(database: str, broker: str) -> dict[str, dict[str, str]]:
    """Return the settings of an Airflow that finds out within half a minute what is gone."""
    return {
        "core": {"executor": "CeleryExecutor", "parallelism": "16"},
        "database": {"sql_alchemy_conn": database},
        "celery": {"broker_url": broker, "result_backend": broker, "worker_concurrency": str(SLOTS // 2)},
        # What a dead worker had taken from the queue but not begun comes back after this. A task that still runs
        # then is handed out a second time, which Airflow refuses; nothing here runs in a worker for two minutes.
        "celery_broker_transport_options": {"visibility_timeout": "120"},
        "scheduler": {
            # A worker that says nothing for six heartbeats is dead: long enough for a busy machine.
            "task_instance_heartbeat_sec": "5",
            "task_instance_heartbeat_timeout": "30",
            "task_instance_heartbeat_timeout_detection_interval": "5",
            "scheduler_health_check_threshold": "20",
            "orphaned_tasks_check_interval": "10",
            # What was queued in a Redis that kept nothing is queued again after this.
            "task_queued_timeout": "60",
            "task_queued_timeout_check_interval": "10",
        },
        "triggerer": {"triggerer_health_check_threshold": "20"},
    }
