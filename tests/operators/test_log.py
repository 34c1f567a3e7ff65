"""What a task writes into its log: each thing once, in words."""

from __future__ import annotations

import asyncio
import logging

import pytest
from airflow.exceptions import TaskDeferred

from airflow_provider_agenty.exceptions import AgentyJobFailedError
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator, AgentyStopJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"
END_OF_LOG = "The end of the log of job"


@pytest.fixture
def said(monkeypatch, caplog):
    """Give the lines said so far, whichever way Airflow's version logs."""
    for kind in (AgentyStartJobOperator, AgentyStopJobOperator, AgentyJobSensor, AgentyJobTrigger):
        monkeypatch.setattr(kind, "log", logging.getLogger("airflow_provider_agenty.task"))
    caplog.set_level("INFO", logger="airflow_provider_agenty.task")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "airflow_provider_agenty.task"]


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger sent no event")


def run(make_task, context):
    """Run a task to its end, through the triggerer if it defers."""
    try:
        return make_task().execute(context)
    except TaskDeferred as deferred:
        _, arguments = deferred.trigger.serialize()
        event = asyncio.run(first_event(AgentyJobTrigger(**arguments)))
        return make_task().execute_complete(context, event)


def start(**parameters):
    return AgentyStartJobOperator(
        task_id="start", agent_id=AGENT, wait_for_completion=True, poll_interval=0.05, **parameters
    )


@pytest.mark.parametrize("deferrable", [False, True])
def test_that_the_job_completed_is_said_once(agenty_sandbox, make_context, said, deferrable):
    agenty_sandbox.plan(seconds=0.3)
    run(lambda: start(deferrable=deferrable), make_context(start()))

    assert len([line for line in said() if "is completed" in line]) == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("stream_logs", [False, True])
def test_the_log_of_a_failed_job_is_copied_once(agenty_sandbox, make_context, said, deferrable, stream_logs):
    agenty_sandbox.plan(outcome="aborted", error="No credit", seconds=0.3, log=[("ERROR", "Page 3 is missing")])
    task = start(deferrable=deferrable, stream_logs=stream_logs)

    with pytest.raises(AgentyJobFailedError):
        run(lambda: start(deferrable=deferrable, stream_logs=stream_logs), make_context(task))
    assert len([line for line in said() if "Page 3 is missing" in line]) == 1
    assert len([line for line in said() if line.startswith(END_OF_LOG)]) == (0 if stream_logs else 1)


def test_a_job_that_is_over_before_the_sensor_defers_gets_its_log_copied_too(agenty_sandbox, make_context, said):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.add_log(job_id, "Page 3 is missing", level="ERROR")
    agenty_sandbox.set_status(job_id, "aborted", error="No credit")
    task = AgentyJobSensor(task_id="wait", job_id=job_id, deferrable=True, stream_logs=True)

    with pytest.raises(AgentyJobFailedError):
        task.execute(make_context(task))
    assert len([line for line in said() if "Page 3 is missing" in line]) == 1


def test_agentys_level_is_the_lines_own_and_not_repeated_in_it(agenty_sandbox, make_context, said, caplog):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.add_log(job_id, "Page 3 is slow", level="WARN")
    agenty_sandbox.set_status(job_id, "completed")
    task = AgentyJobSensor(task_id="wait", job_id=job_id, stream_logs=True, poke_interval=0.05)
    task.execute(make_context(task))

    [record] = [record for record in caplog.records if "Page 3 is slow" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("[Agenty] 20")
    assert record.getMessage().endswith("Z Page 3 is slow")


@pytest.mark.parametrize(
    ("status", "expected"),
    [("running", "Asked Agenty to stop job"), ("completed", "was over before it could be stopped: it is completed")],
)
def test_a_stop_that_changes_nothing_is_not_told_as_one(agenty_sandbox, make_context, said, status, expected):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, status)
    task = AgentyStopJobOperator(task_id="stop", job_id=job_id)
    task.execute(make_context(task))

    assert [line for line in said() if expected in line]


def test_a_retry_says_which_job_an_earlier_try_started(agenty_sandbox, make_context, state_store, said):
    agenty_sandbox.plan(outcome="aborted", error="No credit", seconds=0.1, times=1)
    with pytest.raises(AgentyJobFailedError):
        run(lambda: start(deferrable=False), make_context(start(), store=state_store))
    [job_id] = agenty_sandbox.started_jobs
    task = start(deferrable=False)
    status = task.get_job_status(state_store.values[task.external_id_key], make_context(task, store=state_store))

    assert status == "gone"
    assert [line for line in said() if line.startswith(f"An earlier try started job {job_id}: it is aborted")]


ABOUT_THE_JOB = f" of agent {AGENT}: "
PAGE = f"https://cloud.agenty.com/agents/scraping/{AGENT}"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_wait_begins_with_its_job_and_how_long_it_takes_at_most(agenty_sandbox, make_context, said, deferrable):
    agenty_sandbox.plan(seconds=0.3)
    job_id = run(lambda: start(deferrable=deferrable), make_context(start()))

    assert [line for line in said() if ABOUT_THE_JOB in line] == [
        f"Job {job_id} of agent {AGENT}: waiting at most 7 days, polling every 0.05 s; {PAGE}"
    ]
    assert agenty_sandbox.key not in str(said())


def test_a_start_that_is_not_waited_for_says_so(agenty_sandbox, make_context, said):
    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    job_id = task.execute(make_context(task))

    assert said()[-1] == f"Job {job_id} of agent {AGENT}: not waited for; {PAGE}"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_sensor_says_once_what_it_waits_for(agenty_sandbox, make_context, said, deferrable):
    agenty_sandbox.script(["running", "running", "completed"])
    job_id = agenty_sandbox.start_job(AGENT)

    def wait():
        return AgentyJobSensor(task_id="wait", job_id=job_id, deferrable=deferrable, poke_interval=0.05, timeout=5400)

    run(wait, make_context(wait()))

    about_the_job = [line for line in said() if line.startswith("Job ")]
    assert (
        about_the_job[0] == f"Job {job_id} of agent {AGENT}: waiting at most 90 minutes, polling every 0.05 s; {PAGE}"
    )
    assert len([line for line in said() if ABOUT_THE_JOB in line]) == 1


def test_a_job_that_is_over_is_not_said_to_be_waited_for(agenty_sandbox, make_context, said):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    task = AgentyJobSensor(task_id="wait", job_id=job_id)
    task.execute(make_context(task))

    about_the_job = [line for line in said() if line.startswith("Job ")]
    assert about_the_job[0] == f"Job {job_id} of agent {AGENT}: over already; {PAGE}"
