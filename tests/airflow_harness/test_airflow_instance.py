"""A real Airflow that a test drives: what it shows, and what it survives."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.airflow_harness.airflow_instance import AirflowInstance, AirflowInstanceError
from tests.airflow_harness.processes import processes_of_sessions
from tests.features import needs_airflow_3

pytestmark = [needs_airflow_3, pytest.mark.timeout(400)]

DAG = """
from datetime import timedelta
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

class WaitOperator(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=8)), method_name="go_on")

    def go_on(self, context, event):
        return "woken"

with DAG("observed", schedule=None, params={"seconds": 0}):
    say = BashOperator(
        task_id="say",
        bash_command="echo I am $GREETING with executor ${AIRFLOW__CORE__EXECUTOR:-unset}; sleep {{ params.seconds }}",
    )
    say >> WaitOperator(task_id="wait")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("instance")


@pytest.fixture(scope="module")
def airflow(home):
    dags = home / "dags"
    dags.mkdir()
    (dags / "observed.py").write_text(DAG)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW__CORE__EXECUTOR", "NoSuchExecutor")
        environment.setenv("AIRFLOW__CORE__DAGS_FOLDER", "/nowhere")
        with AirflowInstance(home / "airflow", dags_folder=dags, env={"GREETING": "ready, 100 %"}) as instance:
            components = (instance.api_server, instance.scheduler, instance.dag_processor, instance.triggerer)
            yield instance
            last = [component.pid for component in components]
            assert all(component.is_running for component in components)
    assert processes_of_sessions(last) == []


@pytest.fixture(scope="module")
def survived_run(airflow):
    """A run during whose deferred waiting the triggerer crashed."""
    run = airflow.trigger("observed", run_id="survived")
    airflow.wait_for_task(run, "wait", {"deferred"})
    before = airflow.triggerer.pid
    airflow.triggerer.kill()
    assert airflow.triggerer.processes() == []
    assert airflow.task_instance(run, "wait").state == "deferred"
    airflow.triggerer.start()
    assert airflow.triggerer.pid != before
    assert airflow.wait_for_run(run) == "success"
    return run


def test_a_deferred_task_survives_a_crash_of_the_triggerer(airflow, survived_run):
    assert {task.label: task.state for task in airflow.task_instances(survived_run)} == {
        "say": "success",
        "wait": "success",
    }
    assert airflow.xcom(survived_run, "wait") == "woken"
    assert "Trigger fired event" in airflow.task_log(survived_run, "wait")


def test_what_a_task_left_can_be_read(airflow, survived_run):
    assert airflow.xcom(survived_run, "say") == "I am ready, 100 % with executor unset"
    assert airflow.xcom(survived_run, "say", "no such key") is None
    assert airflow.extra_links(survived_run, "say") == {}
    assert "I am ready" in airflow.task_log(survived_run, "say")


def test_the_process_of_a_task_can_be_killed_and_the_task_cleared_and_marked(airflow):
    run = airflow.trigger("observed", {"seconds": 300})
    airflow.wait_for_task(run, "say", {"running"})
    deadline = time.monotonic() + 60
    while not (pids := airflow.pids_of_task(run, "say")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert set(airflow.worker_pids_of_task(run, "say")) <= set(airflow.scheduler.processes())
    os.kill(pids[0], signal.SIGKILL)
    assert airflow.wait_for_run(run) == "failed"
    assert airflow.clear(run, "say") == ["say"]
    airflow.wait_for_task(run, "say", {"running"}, try_number=2)
    airflow.set_task_state(run, "say", "failed")
    assert airflow.wait_for_run(run) == "failed"


def test_a_database_that_is_held_for_long_is_waited_for(airflow):
    with contextlib.closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor() as pool:
            triggering = pool.submit(airflow.trigger, "observed")
            time.sleep(20)
            database.execute("ROLLBACK")
            assert airflow.wait_for_run(triggering.result()) == "success"
    airflow.check()


def test_a_dag_that_cannot_be_read_is_reported_with_its_trace(airflow):
    broken = airflow.dags_folder / "broken.py"
    broken.write_text("from airflow.sdk import DAG\nraise RuntimeError('a screw is loose')\n")
    try:
        with pytest.raises(AirflowInstanceError, match="a screw is loose"):
            airflow.trigger("broken")
    finally:
        broken.unlink()


def test_the_api_wants_a_password_and_the_files_with_secrets_are_private(airflow):
    answer = requests.get(f"{airflow.url}/api/v2/dags", timeout=30)
    assert answer.status_code == 401
    for name in ("airflow.cfg", "passwords.json"):
        assert Path(airflow.home, name).stat().st_mode & 0o077 == 0
