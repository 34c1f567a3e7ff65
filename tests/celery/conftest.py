"""A whole Airflow over two Celery workers that share no folder, an account of 200 agents, and a bucket."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_api import Run, TaskInstance
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.airflow_harness.processes import Component, ended_by_signals
from tests.airflow_harness.services import ServiceError, postgres, redis
from tests.repeated_csv import RepeatedCsv

JOBS = 200
SLOTS = 8
"""Of both workers together."""

POOL = 25
"""How many jobs go on at once, as if that was what the account's plan allows."""

SMALL, LARGE = 40_000, 20_000_000
"""Bytes of a file; a large one is uploaded in several parts."""

AGENTS = {
    f"agent{number}": RepeatedCsv(
        # None of the large ones in the middle, where downloads are slowed down.
        SMALL if 4 <= number < JOBS - 4 else LARGE,
        rows=[{"name": f"Book {row} of agent {number}", "price": f"£{row}.{number}"} for row in range(10)],
    )
    for number in range(JOBS)
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.celery)
            item.add_marker(pytest.mark.timeout(4000))


def csv_of(number: int) -> bytes:
    content = AGENTS[f"agent{number}"]
    return b"".join(content.chunks(0, content.size))


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Show a line at once: the run takes minutes."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    began = time.monotonic()

    def tell(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        with capture.global_and_fixture_disabled():
            print(f"\n{minutes:2d}:{seconds:02d}  {line}", end="", flush=True)

    return tell


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[str, str]]:
    """The URLs of a PostgreSQL and of a Redis."""
    try:
        with ended_by_signals(), postgres() as database, redis() as broker:
            yield database, broker
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(AGENTS, seconds=4) as sandbox:
        yield sandbox


class Lake:
    """A bucket, and somebody who looks into it all the time."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.connection = {
            "conn_type": "aws",
            "login": "access-key",
            "password": "secret-key",
            "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="access-key",
            aws_secret_access_key="secret-key",
        )
        self._client.create_bucket(Bucket="lake")
        self.expected = {f"books/{number}.csv": csv_of(number) for number in range(JOBS)}
        self.looks: list[int] = []
        self.wrong: list[str] = []
        self._whole: dict[str, str] = {}
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._ended.set()
        self._watcher.join(30)

    def keys(self) -> list[str]:
        return [entry["Key"] for entry in self._entries()]

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket="lake", Key=key)["Body"].read()
        return content

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._client.list_objects_v2(Bucket="lake").get("Contents", [])
        return entries

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            entries = self._entries()
            self.looks.append(len(entries))
            for entry in entries:
                self._look_at(entry["Key"], entry["Size"], f"{entry['ETag']} {entry['LastModified']}")

    def _look_at(self, key: str, size: int, version: str) -> None:
        if self._whole.get(key) == version:
            return
        self._whole[key] = version
        expected = self.expected.get(key)
        if expected is None or size != len(expected) or self.read(key) != expected:
            self.wrong.append(f"{key}, {size} bytes")


@pytest.fixture(scope="session")
def lake() -> Iterator[Lake]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    lake = Lake(f"http://{host}:{port}")
    yield lake
    lake.close()
    server.stop()


@pytest.fixture(scope="session")
def airflow(
    servers: tuple[str, str],
    sandbox: Sandbox,
    lake: Lake,
    tell: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowInstance]:
    database, broker = servers
    with AirflowInstance(
        tmp_path_factory.mktemp("airflow"),
        dags_folder=Path(__file__).parent / "dags",
        env={
            "AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json,
            "AIRFLOW_CONN_LAKE": json.dumps(lake.connection),
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        settings={
            "core": {"executor": "CeleryExecutor", "parallelism": "32"},
            "database": {"sql_alchemy_conn": database},
            "celery": {"broker_url": broker, "result_backend": broker, "worker_concurrency": str(SLOTS // 2)},
            # What a dead worker had taken from the queue but not begun comes back after this. A task that still runs
            # then is handed out a second time, which Airflow refuses; nothing here runs in a worker for a minute.
            "celery_broker_transport_options": {"visibility_timeout": "60"},
            "scheduler": {
                # A worker that says nothing for six heartbeats is dead: long enough for a busy machine.
                "task_instance_heartbeat_sec": "5",
                "task_instance_heartbeat_timeout": "30",
                "task_instance_heartbeat_timeout_detection_interval": "5",
            },
        },
        workers=2,
    ) as airflow:
        _wait_for_workers(broker, 2)
        airflow.wait_for_dag("many_jobs")
        airflow.call("POST", "pools", json={"name": "agenty", "slots": POOL, "include_deferred": True})
        tell("Airflow is up: PostgreSQL, Redis, scheduler, API server, triggerer and two workers")
        yield airflow


def _wait_for_workers(broker: str, count: int) -> None:
    from celery import Celery

    control = Celery(broker=broker).control
    ends = time.monotonic() + 120
    while len(control.ping(timeout=2)) < count:
        assert time.monotonic() < ends, "the workers do not answer"


@dataclass
class Story:
    """What happened: a run over all agents, in the middle of which a worker was killed."""

    run: Run
    state: str
    waiting: int
    """How many jobs went on when all that were to be waited for at once were."""

    killed: Component
    lost: list[TaskInstance] = field(default_factory=list)
    """The tasks that ran in the worker when it was killed."""

    landed_before: int = 0
    started_before: int = 0
    seconds: float = 0.0


def cpu_seconds(component: Component) -> float:
    """Return what a component's processes, and those of their children that have ended, have used."""
    ticks = 0
    for pid in component.processes():
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            ticks += sum(int(each) for each in stat[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
