"""XComs: which there are, when, and each of them once."""

from __future__ import annotations

import asyncio

import pytest
from airflow.exceptions import TaskDeferred

from airflow_provider_agenty.exceptions import AgentyJobFailedError, AgentyTimeoutError, AgentyUnavailableError
from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator, AgentyStopJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"
LINK = "_link_AgentyAgentLink"


@pytest.fixture
def pushes(monkeypatch):
    """Give the XComs pushed so far, in their order."""
    from tests.conftest import FakeTaskInstance

    made = []
    push = FakeTaskInstance.xcom_push
    monkeypatch.setattr(
        FakeTaskInstance, "xcom_push", lambda self, key, value: (made.append((key, value)), push(self, key, value))[1]
    )
    return made


def keys(pushes):
    return [key for key, _ in pushes]


def start(**parameters):
    return AgentyStartJobOperator(**{"task_id": "start", "agent_id": AGENT, "poll_interval": 0.05} | parameters)


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger sent no event")


@pytest.mark.agenty_sandbox(manual=True)
def test_a_sensor_that_looks_often_pushes_once(agenty_sandbox, make_context, pushes):
    job_id = agenty_sandbox.start_job(AGENT)
    for after in range(6):
        agenty_sandbox.fault("GET", f"/jobs/{job_id}", body=agenty_sandbox.job(job_id), times=1, after=after)
    agenty_sandbox.fault(
        "GET", f"/jobs/{job_id}", body=agenty_sandbox.job(job_id) | {"status": "completed"}, after=6, times=None
    )
    task = AgentyJobSensor(task_id="wait", job_id=job_id, poke_interval=0.02)
    task.execute(make_context(task))

    looks = [request for request in agenty_sandbox.requests if request.path == f"/jobs/{job_id}"]
    assert len(looks) >= 7
    assert sorted(keys(pushes)) == [LINK, "job"]


@pytest.mark.agenty_sandbox(manual=True)
def test_a_task_that_is_executed_again_pushes_again(agenty_sandbox, make_context, pushes):
    """Airflow removes a task's XComs when it executes it again, in one process too, as dag.test does."""
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    task = AgentyJobSensor(task_id="wait", job_id=job_id, poke_interval=0.02)
    for _ in range(2):
        task.execute(make_context(task))

    assert sorted(keys(pushes)) == [LINK, LINK, "job", "job"]


@pytest.mark.parametrize("task", [AgentyStopJobOperator, AgentyExportOperator])
def test_the_others_push_the_link_once(agenty_sandbox, make_context, pushes, tmp_path, task):
    [job_id] = agenty_sandbox.add_older_jobs(AGENT, 1)
    made = task(task_id="task", job_id=job_id, **({"path": tmp_path / "x.csv"} if task is AgentyExportOperator else {}))
    made.execute(make_context(made))

    assert keys(pushes) == [LINK]


@pytest.mark.parametrize("wait_for_completion", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_the_id_of_the_job_is_pushed_once_it_is_stored_and_before_anything_else(
    agenty_sandbox, make_context, pushes, state_store, wait_for_completion, durable
):
    task = start(wait_for_completion=wait_for_completion, deferrable=False, durable=durable)
    job_id = task.execute(make_context(task, store=state_store))

    assert pushes[0] == ("job_id", job_id)
    assert keys(pushes) == ["job_id", LINK, "job"][: 3 if wait_for_completion else 2]


def test_the_id_is_stored_before_it_is_pushed(agenty_sandbox, make_context, state_store, monkeypatch):
    from tests.conftest import FakeTaskInstance

    stored_before = []
    monkeypatch.setattr(
        FakeTaskInstance, "xcom_push", lambda self, key, value: stored_before.append(dict(state_store.values))
    )
    task = start()
    job_id = task.execute(make_context(task, store=state_store))

    assert stored_before[0][task.external_id_key]["job_id"] == job_id


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_id_of_a_job_that_fails_is_there(agenty_sandbox, make_context, deferrable):
    agenty_sandbox.plan(outcome="aborted", error="No credit", seconds=0.1)
    task = start(wait_for_completion=True, deferrable=deferrable)
    context = make_context(task)
    with pytest.raises((AgentyJobFailedError, TaskDeferred)) as raised:
        task.execute(context)

    assert [context["ti"].pushed["job_id"]] == agenty_sandbox.started_jobs
    if deferrable:
        event = asyncio.run(first_event(AgentyJobTrigger(**raised.value.trigger.serialize()[1])))
        with pytest.raises(AgentyJobFailedError):
            start(wait_for_completion=True, deferrable=True).execute_complete(context, event)
        assert [context["ti"].pushed["job_id"]] == agenty_sandbox.started_jobs


@pytest.mark.agenty_sandbox(manual=True)
def test_the_id_of_a_job_that_is_not_done_in_time_is_there(agenty_sandbox, make_context):
    task = start(wait_for_completion=True, deferrable=False, timeout=0.2)
    context = make_context(task)
    with pytest.raises(AgentyTimeoutError):
        task.execute(context)

    assert [context["ti"].pushed["job_id"]] == agenty_sandbox.started_jobs


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("status", ["running", "completed", "aborted", None])
def test_a_retry_pushes_the_id_of_the_job_it_goes_on_with(agenty_sandbox, make_context, state_store, status):
    first = start(retries=1)
    job_id = first.execute(make_context(first, store=state_store, max_tries=1))
    if status is None:
        agenty_sandbox.fault("GET", f"/jobs/{job_id}", status=503, times=None)
    else:
        agenty_sandbox.set_status(job_id, status)
    retry = start(retries=1)
    context = make_context(retry, store=state_store, try_number=2, max_tries=1)
    if status is None:
        with pytest.raises(AgentyUnavailableError):
            retry.execute(context)
        assert context["ti"].pushed["job_id"] == job_id
    else:
        assert context["ti"].pushed.get("job_id") is None
        assert retry.execute(context) == context["ti"].pushed["job_id"] == agenty_sandbox.started_jobs[-1]
