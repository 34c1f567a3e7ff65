"""A start where the agent has a job already: docs/start-and-wait.md's table, row by row."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from airflow_provider_agenty.airflow_compat import AirflowFailException, AirflowSkipException
from airflow_provider_agenty.exceptions import (
    AgentyAlreadyRunningError,
    AgentyInputError,
    AgentyJobFailedError,
    AgentyTimeoutError,
)
from airflow_provider_agenty.operators import existing_job
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.waiting.task_state import JOB_KEY

AGENT = "45l0wewqzk"
ALL = ("start", "join", "skip", "fail", "stop")
ACTIVE = ("submitted", "starting", "queued", "started", "running", "completing", "a_state_of_tomorrow")

pytestmark = pytest.mark.agenty_sandbox(manual=True)


@pytest.fixture
def start(make_context):
    def run(if_running="start", *, store=None, try_number=1, max_tries=0, **parameters):
        task = AgentyStartJobOperator(task_id="start", agent_id=AGENT, if_running=if_running, **parameters)
        return task.execute(make_context(task, store=store, try_number=try_number, max_tries=max_tries))

    return run


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(existing_job, "SECONDS_BETWEEN_POLLS", 0.02)


@pytest.mark.parametrize("if_running", ALL)
@pytest.mark.parametrize("before", [None, "completed", "stopped", "aborted"])
def test_without_a_job_that_goes_on_one_is_started(agenty_sandbox, start, if_running, before):
    if before:
        agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), before)

    assert [start(if_running)] == agenty_sandbox.started_jobs
    assert agenty_sandbox.stops == 0


@pytest.mark.parametrize("status", ACTIVE)
@pytest.mark.parametrize("scheduled", [True, False])
def test_join_takes_the_job_whoever_started_it(agenty_sandbox, start, status, scheduled):
    job_id = agenty_sandbox.start_job(AGENT, is_scheduled=scheduled)
    agenty_sandbox.set_status(job_id, status)

    assert start("join") == job_id
    assert agenty_sandbox.starts == 0


def test_join_takes_the_newest_of_several(agenty_sandbox, start):
    *_, newest = [agenty_sandbox.start_job(AGENT) for _ in range(3)]

    assert start("join") == newest


@pytest.mark.parametrize("if_running", ["start", "join", "skip", "fail"])
def test_a_job_that_is_stopping_does_not_count(agenty_sandbox, start, if_running):
    agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), "stopping")

    assert [start(if_running)] == agenty_sandbox.started_jobs


def test_start_starts_another_one(agenty_sandbox, start):
    agenty_sandbox.start_job(AGENT)

    assert [start("start")] == agenty_sandbox.started_jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_skip_skips_the_task(agenty_sandbox, start, jobs):
    job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(jobs)]

    with pytest.raises(AirflowSkipException, match=f"running already: job {job_ids[-1]}.*Nothing was started"):
        start("skip")
    assert agenty_sandbox.starts == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_fail_fails_it_and_uses_no_retries(agenty_sandbox, start, jobs):
    job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(jobs)]

    with pytest.raises(AgentyAlreadyRunningError) as failed:
        start("fail")
    assert isinstance(failed.value, AirflowFailException)
    assert (failed.value.agent_id, failed.value.job_ids) == (AGENT, tuple(reversed(job_ids)))
    assert agenty_sandbox.starts == 0


@pytest.mark.parametrize("jobs", [1, 3])
def test_stop_stops_all_waits_and_starts(agenty_sandbox, start, jobs):
    job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(jobs)]

    assert [start("stop")] == agenty_sandbox.started_jobs
    assert sorted(agenty_sandbox.stopped_jobs) == job_ids
    assert all(agenty_sandbox.job(job_id)["status"] == "stopped" for job_id in job_ids)


def test_stop_waits_for_what_somebody_else_stopped(agenty_sandbox, start):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "stopping")
    threading.Timer(0.3, agenty_sandbox.set_status, (job_id, "stopped")).start()

    assert [start("stop")] == agenty_sandbox.started_jobs
    assert agenty_sandbox.stops == 0


def test_stop_starts_nothing_while_the_job_is_not_over(agenty_sandbox, start, monkeypatch):
    monkeypatch.setattr(existing_job, "MAX_SECONDS_TO_STOP", 0.0)
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "stopping")

    with pytest.raises(AgentyTimeoutError, match=f"Job {job_id} .* not over after a minute. Nothing was started"):
        start("stop")
    assert agenty_sandbox.starts == 0


@pytest.mark.parametrize("if_running", ALL)
@pytest.mark.parametrize("period", [3600, 3600.0, timedelta(hours=1)])
def test_a_job_that_has_just_completed_is_reused(agenty_sandbox, start, if_running, period):
    job_id = agenty_sandbox.start_job(AGENT, is_scheduled=True)
    agenty_sandbox.set_status(job_id, "completed")
    agenty_sandbox.start_job(AGENT)

    assert start(if_running, reuse_completed_within=period) == job_id
    assert (agenty_sandbox.starts, agenty_sandbox.stops) == (0, 0)


def test_the_one_that_completed_last_is_reused(agenty_sandbox, start):
    first, second = agenty_sandbox.start_job(AGENT), agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(second, "completed", completed_at="2026-01-01T00:00:00Z")
    agenty_sandbox.set_status(first, "completed")

    assert start(reuse_completed_within=3600) == first


def test_a_job_that_completed_too_long_ago_is_not_reused(agenty_sandbox, start):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed", completed_at="2026-01-01T00:00:00Z")

    assert [start(reuse_completed_within=60)] == agenty_sandbox.started_jobs


def test_a_job_that_ended_badly_is_not_reused(agenty_sandbox, start):
    for status in ("stopped", "aborted"):
        agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), status)

    assert [start(reuse_completed_within=3600)] == agenty_sandbox.started_jobs


def test_a_job_with_too_many_failed_pages_is_not_reused_by_a_task_that_waits(agenty_sandbox, make_context):
    agenty_sandbox.set_status(
        agenty_sandbox.start_job(AGENT), "completed", pages_total=10, pages_processed=10, pages_failed=5
    )
    task = AgentyStartJobOperator(
        task_id="start",
        agent_id=AGENT,
        reuse_completed_within=3600,
        max_failed_ratio=0.1,
        wait_for_completion=True,
        deferrable=False,
        poll_interval=0.05,
        timeout=5,
    )
    agenty_sandbox.script(["aborted"])

    with pytest.raises(AgentyJobFailedError):
        task.execute(make_context(task))
    assert agenty_sandbox.starts == 1


def test_the_job_of_an_earlier_try_comes_first(agenty_sandbox, start, state_store):
    job_id = start(store=state_store, max_tries=1)
    agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), "completed")

    for if_running in ALL:
        again = start(if_running, reuse_completed_within=3600, store=state_store, try_number=2, max_tries=1)
        assert again == job_id
    assert (agenty_sandbox.starts, agenty_sandbox.stops) == (1, 0)


@pytest.mark.parametrize("parameters", [{"if_running": "join"}, {"reuse_completed_within": 3600}])
def test_what_is_taken_is_stored_like_a_started_job(agenty_sandbox, start, state_store, parameters):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed" if "reuse_completed_within" in parameters else "running")

    assert start(store=state_store, max_tries=1, **parameters) == job_id
    assert state_store.values[JOB_KEY]["job_id"] == job_id
    for _ in range(2):
        agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), "completed")
    assert start(store=state_store, try_number=2, max_tries=1, **parameters) == job_id


def test_after_a_clear_the_parameters_decide(agenty_sandbox, start, state_store):
    first = start(store=state_store, max_tries=1)
    agenty_sandbox.set_status(first, "completed")

    assert start(store=state_store, try_number=3, max_tries=3, reuse_completed_within=3600) == first
    assert start(store=state_store, try_number=5, max_tries=5) != first


@pytest.mark.parametrize("parameters", [{"if_running": "join"}, {"reuse_completed_within": 60}])
def test_urls_cannot_be_combined_with_a_job_of_somebody_else(agenty_sandbox, start, parameters):
    with pytest.raises(AgentyInputError, match="can't be combined with urls"):
        start(urls=["https://example.com/1"], **parameters)
    assert agenty_sandbox.requests == []


@pytest.mark.parametrize("if_running", ["start", "skip", "fail", "stop"])
def test_urls_go_with_the_others(agenty_sandbox, start, if_running):
    assert [start(if_running, urls=["https://example.com/1"])] == agenty_sandbox.started_jobs


@pytest.mark.parametrize("if_running", ["Join", "", None, True, 1, ["join"]])
def test_an_unknown_value_is_refused_when_the_dag_is_read(start, if_running):
    with pytest.raises(AgentyInputError, match="if_running"):
        start(if_running)


@pytest.mark.parametrize("period", [0, -1, "1h", True, float("nan"), float("inf")])
def test_a_period_that_is_none_is_refused_when_the_dag_is_read(start, period):
    with pytest.raises(AgentyInputError, match="reuse_completed_within"):
        start(reuse_completed_within=period)
