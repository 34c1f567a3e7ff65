"""The points of test_crashes.py that matter most, on Airflow 2, with each of the two memories of a start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_2 import Airflow2
from tests.crash.conftest import SecretsBackend
from tests.crash.test_crashes import (
    accepted_but_not_answered,
    before_the_post,
    completed_before_the_retry,
    deferred_and_the_triggerer,
    its_worker_before_the_post,
    waiting_in_a_worker,
)


@pytest.fixture(scope="module")
def airflow_2(
    sandbox: Sandbox, secrets_backend: SecretsBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow2]:
    with Airflow2(
        tmp_path_factory.mktemp("airflow"),
        dags_folder=Path(__file__).parent / "dags_of_airflow_2",
        env={"AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json},
        settings={
            "scheduler": {
                "job_heartbeat_sec": "1",
                "scheduler_zombie_task_threshold": "20",
                "zombie_detection_interval": "1",
            },
            "triggerer": {"job_heartbeat_sec": "1", "triggerer_health_check_threshold": "15"},
            "secrets": secrets_backend.settings,
            # Variables can be looked up in the database then.
            "core": {"fernet_key": ""},
        },
    ) as airflow:
        yield airflow


@pytest.fixture(scope="module", params=["variables", "auto"])
def airflow(airflow_2: Airflow2, request: pytest.FixtureRequest) -> Airflow2:
    airflow_2.restart_scheduler({"agenty": {"start_memory": request.param}})
    return airflow_2


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(before_the_post, id="killed before the start is sent"),
        pytest.param(its_worker_before_the_post, id="its worker killed before that, and the task lives on"),
        pytest.param(accepted_but_not_answered("sync"), id="killed after Agenty accepted, before the answer"),
        pytest.param(waiting_in_a_worker, id="killed while it waits in a worker"),
        pytest.param(completed_before_the_retry, id="the same, and the job completes before the retry"),
        pytest.param(deferred_and_the_triggerer("kill"), id="deferred, and the triggerer is killed"),
    ],
)
def test_a_job_is_never_paid_for_twice(act, scenario, until):
    act(scenario, until)
    scenario.reaches("success")

    assert (scenario.starts, scenario.stops) == (1, 0)
    assert scenario.returned() == str(scenario.job_ids[-1])
    until(lambda: not scenario.stored("agenty_start"), "what was remembered of the start is left over")


@pytest.mark.parametrize("airflow", ["variables"], indirect=True)
@pytest.mark.parametrize("behaviour", ["raise", "60"])
def test_a_bad_secrets_backend_is_not_asked(behaviour, secrets_backend, scenario, until):
    with secrets_backend.behaves(behaviour):
        began = time.monotonic()
        scenario.begin("sync")
        job_id = scenario.runs_its_job()
        assert scenario.stored("agenty_job")
        scenario.complete(job_id)
        scenario.reaches("success")
        until(lambda: not scenario.stored("agenty_start"), "what was remembered of the start is left over")

    assert time.monotonic() - began < 60
    assert scenario.starts == 1
