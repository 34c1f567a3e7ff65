"""A job's log is copied into the task's, each line once, whatever happens to the task in between."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from datetime import UTC, datetime

import pytest
from airflow.exceptions import AirflowRescheduleException, TaskDeferred

from airflow_provider_agenty.airflow_compat import AirflowSensorTimeout
from airflow_provider_agenty.exceptions import AgentyJobFailedError, AgentyTimeoutError
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger
from airflow_provider_agenty.waiting import log_copy

AGENT = "45l0wewqzk"

pytestmark = pytest.mark.agenty_sandbox(manual=True)


class TaskLog:
    """The log of a task, and of its trigger: keeps the messages of the entries that are copied into it."""

    def __init__(self):
        self.copied = []

    def log(self, _level, message, *arguments, **_):
        line = message % arguments
        if line.startswith("[Agenty] "):
            self.copied.append(line.split(" ", 2)[2].replace("\n[Agenty]   ", "\n"))

    def info(self, message, *arguments, **_):
        self.log(logging.INFO, message, *arguments)

    debug = warning = error = exception = info


@pytest.fixture
def told(monkeypatch):
    """Give the messages of the entries that were copied so far."""
    log = TaskLog()
    for kind in (AgentyStartJobOperator, AgentyJobSensor, AgentyJobTrigger):
        monkeypatch.setattr(kind, "log", log)
    return log.copied


@pytest.fixture
def xcoms(monkeypatch):
    """Stand in for the XComs of a task instance, which the triggerer keeps in Airflow's database."""
    values = {}
    monkeypatch.setattr(log_copy, "read_xcom", lambda ti, key: values.get((ti.task_id, key)))
    monkeypatch.setattr(log_copy, "write_xcom", lambda ti, key, value: values.update({(ti.task_id, key): value}))
    return values


def messages_of(sandbox, job_id):
    lines = sandbox.log(job_id)
    return [line.split(" ", 2)[2] if line.startswith("20") else line for line in lines]


def assert_each_line_once(told, sandbox, job_id):
    assert "\n".join(told).split("\n") == messages_of(sandbox, job_id)


def start_running(sandbox, lines=5):
    job_id = sandbox.start_job(AGENT)
    sandbox.set_status(job_id, "running")
    write(sandbox, job_id, lines)
    return job_id


def write(sandbox, job_id, lines=5):
    for _ in range(lines):
        sandbox.add_log(job_id, f"line {len(sandbox.log(job_id))}")


def goes_on(sandbox, job_id, end="completed"):
    """Let a running job log more after a few polls, and end after a few more."""

    def go_on():
        asked = len(sandbox.requests)
        sandbox.wait_for_request("GET", f"/jobs/{job_id}", count=asked + 2)
        write(sandbox, job_id)
        sandbox.wait_for_request("GET", f"/jobs/{job_id}", count=asked + 4)
        write(sandbox, job_id)
        sandbox.set_status(job_id, end)

    sandbox.clear()
    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger sent no event")


def run(make_task, make_context, **context):
    """Run a task to its end, with a new operator for each process that Airflow would start."""
    context = make_context(make_task(), **context)
    while True:
        try:
            return make_task().execute(context)
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)
            time.sleep(0.02)
        except TaskDeferred as deferred:
            trigger = type(deferred.trigger)(**deferred.trigger.serialize()[1])
            event = asyncio.run(first_event(trigger))
            return make_task().resume_execution(deferred.method_name, {"event": event}, context)


def sensor(job_id, mode, **parameters):
    how = {"deferrable": True} if mode == "deferrable" else {"deferrable": False, "mode": mode}
    return lambda: AgentyJobSensor(
        **{"task_id": "wait", "job_id": job_id, "stream_logs": True, "poke_interval": 0.05} | how | parameters
    )


def operator(mode, kind=AgentyStartJobOperator, **parameters):
    return lambda: kind(
        **{"task_id": "start", "agent_id": AGENT, "stream_logs": True, "wait_for_completion": True}
        | {"poll_interval": 0.05, "deferrable": mode == "deferrable"}
        | parameters
    )


@pytest.mark.parametrize("is_remembered", [True, False], ids=["Airflow 3.3", "before"])
@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_each_mode_of_the_sensor_copies_each_line_once(
    agenty_sandbox, make_context, state_store, told, mode, is_remembered
):
    job_id = start_running(agenty_sandbox)
    others = goes_on(agenty_sandbox, job_id)
    run(sensor(job_id, mode), make_context, store=state_store if is_remembered else None)
    others.join()

    assert_each_line_once(told, agenty_sandbox, job_id)


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_the_log_of_a_job_that_is_over_at_the_first_look_is_copied_too(agenty_sandbox, make_context, told, mode):
    job_id = start_running(agenty_sandbox)
    agenty_sandbox.set_status(job_id, "completed")
    run(sensor(job_id, mode), make_context)

    assert_each_line_once(told, agenty_sandbox, job_id)


@pytest.mark.parametrize("mode", ["sync", "deferrable"])
def test_both_modes_of_the_operator_copy_each_line_once(agenty_sandbox, make_context, state_store, told, mode):
    agenty_sandbox.script([{"status": "running"}] * 5 + [{"status": "completed"}])
    run(operator(mode), make_context, store=state_store)
    (job_id,) = agenty_sandbox.started_jobs

    assert_each_line_once(told, agenty_sandbox, job_id)


class Killed(BaseException):
    """Ends a task as abruptly as a process can end."""


class KilledOperator(AgentyStartJobOperator):
    """Is killed after its first poll."""

    def follow_log(self, job, context):
        super().follow_log(job, context)
        raise Killed


@pytest.mark.parametrize("mode", ["sync", "deferrable"])
def test_a_retry_goes_on_where_the_try_before_was_cut_off(agenty_sandbox, make_context, state_store, told, mode):
    agenty_sandbox.script(["running"])
    with pytest.raises(Killed):
        run(operator("sync", kind=KilledOperator), make_context, store=state_store, max_tries=1)
    assert told, "the first try copied nothing"
    (job_id,) = agenty_sandbox.started_jobs
    others = goes_on(agenty_sandbox, job_id)
    run(operator(mode), make_context, store=state_store, max_tries=1, try_number=2)
    others.join()

    assert agenty_sandbox.starts == 0, "the retry attached to the job"
    assert_each_line_once(told, agenty_sandbox, job_id)


def test_a_job_that_completed_between_two_tries_has_its_log_copied_to_the_end(
    agenty_sandbox, make_context, state_store, told
):
    job_id = start_running(agenty_sandbox)
    state_store.set("agenty_job", {"agent_id": AGENT, "job_id": job_id, "max_tries": 1})
    state_store.set("agenty_log", {"job_id": job_id, "max_tries": 1, "offset": 3})
    agenty_sandbox.set_status(job_id, "completed")
    run(operator("sync"), make_context, store=state_store, max_tries=1, try_number=2)

    assert told == messages_of(agenty_sandbox, job_id)[3:]


def test_a_retry_of_a_deferred_wait_goes_on_where_its_trigger_ended(agenty_sandbox, make_context, state_store, told):
    job_id = start_running(agenty_sandbox)
    state_store.set("agenty_job", {"agent_id": AGENT, "job_id": job_id, "max_tries": 1})
    parameters = {"cancel_on_timeout": False}
    with pytest.raises(AgentyTimeoutError):
        run(operator("deferrable", timeout=0.3, **parameters), make_context, store=state_store, max_tries=1)
    others = goes_on(agenty_sandbox, job_id)
    run(operator("deferrable", **parameters), make_context, store=state_store, max_tries=1, try_number=2)
    others.join()

    assert_each_line_once(told, agenty_sandbox, job_id)


@pytest.mark.parametrize(("max_tries", "times"), [(1, 1), (3, 2)], ids=["retry", "clear"])
def test_a_retry_of_the_sensor_goes_on_and_a_clear_begins_anew(
    agenty_sandbox, make_context, state_store, told, max_tries, times
):
    job_id = start_running(agenty_sandbox)
    with pytest.raises(AirflowSensorTimeout):
        run(sensor(job_id, "poke", timeout=1.5), make_context, store=state_store, max_tries=1)
    agenty_sandbox.set_status(job_id, "completed")
    run(sensor(job_id, "deferrable"), make_context, store=state_store, max_tries=max_tries, try_number=2)

    assert told.count("line 4") == times


@pytest.mark.parametrize("mode", ["sync", "deferrable"])
def test_why_a_job_failed_is_told_once(agenty_sandbox, make_context, told, mode):
    agenty_sandbox.script(["running", "running", {"status": "aborted", "error": "Not enough page credits"}])
    with pytest.raises(AgentyJobFailedError) as error:
        run(operator(mode), make_context)
    (job_id,) = agenty_sandbox.started_jobs

    assert_each_line_once(told, agenty_sandbox, job_id)
    assert error.value.log_entries


@pytest.mark.parametrize("method", ["get", "set"])
def test_a_state_store_that_is_away_costs_no_wait(agenty_sandbox, make_context, state_store, told, monkeypatch, method):
    def away(*_, **__):
        raise ConnectionError("the API server is away")

    job_id = start_running(agenty_sandbox)
    monkeypatch.setattr(state_store, method, away)
    agenty_sandbox.set_status(job_id, "completed")
    run(sensor(job_id, "poke"), make_context, store=state_store)

    assert_each_line_once(told, agenty_sandbox, job_id)


class TestTrigger:
    def test_it_goes_on_from_the_line_it_is_given(self, agenty_sandbox, told):
        job_id = start_running(agenty_sandbox)
        others = goes_on(agenty_sandbox, job_id)
        trigger = AgentyJobTrigger(job_id, poll_interval=0.05, stream_logs=True, log_offset=4)
        asyncio.run(first_event(trigger))
        others.join()

        assert told == messages_of(agenty_sandbox, job_id)[4:]

    def make(self, job_id, make_context, **task_instance):
        trigger = AgentyJobTrigger(job_id, poll_interval=0.05, stream_logs=True)
        trigger.task_instance = make_context(None, **task_instance)["ti"]
        trigger.task_instance.task = None
        return trigger

    async def run_until_kept(self, trigger, xcoms):
        """Run a trigger until it has stored how far it is, and end it as a triggerer that is killed."""
        running = asyncio.create_task(first_event(trigger))
        while not xcoms:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    @pytest.mark.parametrize(("try_number", "times"), [(1, 1), (2, 2)], ids=["restart", "next try"])
    def test_another_triggerer_goes_on_where_the_one_before_was(
        self, agenty_sandbox, make_context, told, xcoms, try_number, times
    ):
        job_id = start_running(agenty_sandbox)
        asyncio.run(self.run_until_kept(self.make(job_id, make_context), xcoms))
        write(agenty_sandbox, job_id)
        agenty_sandbox.set_status(job_id, "completed")
        asyncio.run(first_event(self.make(job_id, make_context, try_number=try_number)))

        assert [told.count(f"line {number}") for number in (4, 6)] == [times, times]
        if times == 1:
            assert_each_line_once(told, agenty_sandbox, job_id)

    def test_it_is_stored_now_and_then_not_with_every_poll(self, agenty_sandbox, make_context, told, xcoms):
        job_id = start_running(agenty_sandbox)
        others = goes_on(agenty_sandbox, job_id)
        asyncio.run(first_event(self.make(job_id, make_context)))
        others.join()

        assert len(told) > next(iter(xcoms.values()))["offset"] > 0

    def test_what_was_just_written_is_not_stored_before_the_next_turn(
        self, agenty_sandbox, make_context, told, xcoms, monkeypatch
    ):
        stored = []
        write_xcom = log_copy.write_xcom
        monkeypatch.setattr(log_copy, "write_xcom", lambda *args: (stored.append(time.time()), write_xcom(*args)))
        job_id = start_running(agenty_sandbox)
        trigger = self.make(job_id, make_context)
        trigger.poll_interval = 0.5
        asyncio.run(self.run_until_kept(trigger, xcoms))

        copied = next(request for request in agenty_sandbox.requests if request.path == f"/jobs/{job_id}/logs")
        assert stored[0] - copied.time > 0.4

    @pytest.mark.parametrize("away", ["read_xcom", "write_xcom"])
    def test_an_xcom_that_is_away_costs_no_wait(self, agenty_sandbox, make_context, told, xcoms, monkeypatch, away):
        def fail(*_):
            raise ConnectionError("the database is away")

        monkeypatch.setattr(log_copy, away, fail)
        job_id = start_running(agenty_sandbox)
        agenty_sandbox.set_status(job_id, "completed")
        event = asyncio.run(first_event(self.make(job_id, make_context)))

        assert event["status"] == "success"
        assert event["log_offset"] == len(agenty_sandbox.log(job_id))
        assert_each_line_once(told, agenty_sandbox, job_id)

    @pytest.mark.filterwarnings("error::ResourceWarning")
    @pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "over"])
    def test_no_socket_is_left_open(self, agenty_sandbox, make_context, told, xcoms, is_cancelled):
        job_id = start_running(agenty_sandbox)
        if is_cancelled:
            asyncio.run(self.run_until_kept(self.make(job_id, make_context), xcoms))
        else:
            agenty_sandbox.set_status(job_id, "completed")
            asyncio.run(first_event(self.make(job_id, make_context)))
        gc.collect()
