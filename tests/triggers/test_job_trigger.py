"""The trigger: serialised small, never in the way of other triggers, and careful with stops."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time

import pytest

from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

AGENT = "45l0wewqzk"

# What each release put into databases: a newer one must read it back.
RELEASED = {
    "0.1.0": {
        "job_id": 7,
        "agenty_conn_id": "agenty_default",
        "poll_interval": 10.0,
        "deadline": 1800000000.5,
        "max_failed_ratio": 0.5,
        "cancel_on_kill": True,
        "stream_logs": True,
        "log_offset": 3,
    },
    "0.1.0, without a worker": {
        "job_id": 7,
        "agenty_conn_id": "agenty_default",
        "poll_interval": 10.0,
        "deadline": None,
        "max_failed_ratio": None,
        "cancel_on_kill": False,
        "stream_logs": False,
        "log_offset": 0,
        "end_from_trigger": True,
    },
    "0.1.0, before the guards": {
        "job_id": 7,
        "agenty_conn_id": "agenty_default",
        "poll_interval": 10.0,
        "deadline": 1800000000.5,
        "max_failed_ratio": 0.5,
        "cancel_on_kill": True,
        "stream_logs": False,
        "log_offset": 0,
        "end_from_trigger": False,
    },
}


@pytest.mark.parametrize("release", RELEASED)
def test_what_an_earlier_release_stored_is_understood(release):
    path, arguments = AgentyJobTrigger(**RELEASED[release]).serialize()

    assert path == "airflow_provider_agenty.triggers.agenty.AgentyJobTrigger"
    assert json.loads(json.dumps(arguments)).items() >= RELEASED[release].items()


def test_what_was_stored_before_there_were_guards_has_none():
    arguments = AgentyJobTrigger(**RELEASED["0.1.0, before the guards"]).serialize()[1]

    assert {arguments.pop(name) for name in ("max_credits", "stall_timeout", "queue_timeout")} == {None}
    assert arguments == RELEASED["0.1.0, before the guards"]


def test_only_the_job_has_to_be_given():
    assert AgentyJobTrigger(7).serialize()[1]["agenty_conn_id"] == "agenty_default"


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger sent no event")


def test_the_event_is_made_of_primitives_and_has_no_secret(agenty_sandbox):
    job_id = agenty_sandbox.start_job(AGENT)

    event = asyncio.run(first_event(AgentyJobTrigger(job_id, poll_interval=0.02)))

    assert event["status"] == "success"
    assert event["agent_id"] == AGENT
    assert event["job"]["job_id"] == event["job_id"] == job_id
    assert agenty_sandbox.key not in json.dumps(event)


@pytest.mark.agenty_sandbox(manual=True)
def test_a_slow_answer_does_not_hold_up_the_event_loop(agenty_sandbox):
    job_id = agenty_sandbox.start_job(AGENT)
    slow = agenty_sandbox.fault("GET", f"/jobs/{job_id}", hold="before", times=None)

    async def watch_the_loop():
        waiting = asyncio.create_task(first_event(AgentyJobTrigger(job_id, poll_interval=0.02)))
        # Were the loop blocked by the call, this would never be reached: the answer comes only afterwards.
        while not await asyncio.to_thread(lambda: slow.holding):
            await asyncio.sleep(0.01)
        agenty_sandbox.set_status(job_id, "completed")
        slow.release()
        return await waiting

    assert asyncio.run(watch_the_loop())["status"] == "success"


@pytest.mark.agenty_sandbox(manual=True)
def test_a_triggerer_that_stops_sends_no_stop(agenty_sandbox):
    job_id = agenty_sandbox.start_job(AGENT)

    async def run_and_cancel():
        trigger = AgentyJobTrigger(job_id, poll_interval=0.02, cancel_on_kill=True)
        waiting = asyncio.create_task(first_event(trigger))
        await asyncio.to_thread(agenty_sandbox.wait_for_request, "GET", f"/jobs/{job_id}", count=2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.cleanup()

    asyncio.run(run_and_cancel())
    assert agenty_sandbox.stops == 0


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize(("cancel", "stops"), [(True, 1), (False, 0)])
def test_a_user_who_ends_the_task_stops_the_job_once_if_wanted(agenty_sandbox, cancel, stops):
    job_id = agenty_sandbox.start_job(AGENT)

    asyncio.run(AgentyJobTrigger(job_id, cancel_on_kill=cancel).on_kill())

    assert agenty_sandbox.stops == stops


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("why", ["over budget", "ended by a user"])
def test_a_stop_is_logged_in_the_context_of_its_trigger(agenty_sandbox, monkeypatch, why):
    """Airflow finds the task that a line belongs to by the context in which it is logged."""
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "running", pages_credit=11)
    task = contextvars.ContextVar("task", default=None)
    logged = {}

    class Noting(logging.Handler):
        def emit(self, record):
            logged[record.getMessage()] = task.get()

    log = logging.Logger("trigger")
    log.addHandler(Noting())
    monkeypatch.setattr(AgentyJobTrigger, "log", log)

    async def wait():
        task.set("this one")
        trigger = AgentyJobTrigger(job_id, poll_interval=0.02, cancel_on_kill=True, max_credits=10)
        await (first_event(trigger) if why == "over budget" else trigger.on_kill())

    asyncio.run(wait())
    assert agenty_sandbox.stops == 1
    assert any(f"Asked Agenty to stop job {job_id}" in message for message in logged)
    assert set(logged.values()) == {"this one"}


@pytest.mark.agenty_sandbox(manual=True)
def test_a_job_that_is_over_is_not_stopped_while_the_rest_of_its_log_is_copied(agenty_sandbox):
    """Airflow cancels a trigger as a user does also where another triggerer has sent its event."""
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    reading = agenty_sandbox.fault("GET", f"/jobs/{job_id}/logs", hold="before")

    async def run_and_kill():
        trigger = AgentyJobTrigger(job_id, poll_interval=60, cancel_on_kill=True, stream_logs=True)
        waiting = asyncio.create_task(first_event(trigger))
        # Before the interval is over the log is read only because the job is.
        while not reading.holding:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.on_kill()
        reading.release()

    asyncio.run(run_and_kill())
    assert agenty_sandbox.stops == 0


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_stop_that_fails_is_one_request_and_no_error(agenty_sandbox, status):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.fault("GET", f"/jobs/{job_id}/stop", status=status, body={"message": "No"}, times=None)

    asyncio.run(AgentyJobTrigger(job_id, cancel_on_kill=True).on_kill())

    assert sum(request.path.endswith("/stop") for request in agenty_sandbox.requests) == 1


@pytest.mark.agenty_sandbox(manual=True)
def test_a_deadline_that_passed_while_no_triggerer_ran_ends_the_wait_at_once(agenty_sandbox):
    job_id = agenty_sandbox.start_job(AGENT)

    event = asyncio.run(first_event(AgentyJobTrigger(job_id, poll_interval=60, deadline=time.time() - 60)))

    assert event["status"] == "timeout"
    assert event["job"]["job_id"] == job_id
