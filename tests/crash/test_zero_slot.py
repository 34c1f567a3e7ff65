"""Waiting that takes no worker at all, in a real Airflow."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture
def on(scenario):
    scenario.task_id = "wait"
    return scenario


def was_in_a_worker(on) -> bool:
    """Only a worker gives a task instance a process id."""
    answer: dict[str, Any] = on.airflow.call("GET", f"dags/{on.run.dag_id}/dagRuns/{on.run.run_id}/taskInstances/wait")
    return answer["pid"] is not None


def test_a_successful_wait_starts_and_ends_in_the_triggerer(on):
    on.begin("zero_slot")
    job_id = on.runs_its_job()
    on.reaches("deferred")
    on.complete(job_id)
    on.reaches("success")

    assert not was_in_a_worker(on)
    # Seen on Airflow 3.3.2: what a trigger pushes is stored as JSON text, so the id arrives as text.
    assert int(on.returned()) == job_id
    job = on.airflow.xcom(on.run, "wait", "job")
    assert (json.loads(job) if isinstance(job, str) else job)["status"] == "completed"
    assert on.link() == f"https://cloud.agenty.com/agents/scraping/{on.agent_id}"


def test_a_failed_job_fails_the_task_in_a_worker_with_its_reason(on):
    on.begin("zero_slot")
    job_id = on.runs_its_job()
    on.sandbox.set_status(job_id, "aborted", error="Not enough page credits")
    on.reaches("failed")

    assert was_in_a_worker(on)
    assert "Not enough page credits" in on.log


def test_a_timeout_is_a_sensors_timeout(on):
    on.begin("zero_slot_timeout")
    on.runs_its_job()
    on.reaches("skipped")

    assert on.stops == 0
