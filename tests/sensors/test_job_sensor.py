"""The sensor ends alike in each of its modes, and so does the waiting operator in each of its two."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.exceptions import AirflowRescheduleException, TaskDeferred

from airflow_provider_agenty.airflow_compat import AirflowSensorTimeout, AirflowSkipException
from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
    AgentyNotFoundError,
    AgentyTimeoutError,
)
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

AGENT = "45l0wewqzk"
MODES = ("poke", "reschedule", "deferrable")
BRIEF = {"poke_interval": 0.05, "timeout": 30}


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger sent no event")


def defer_and_resume(make_task, context, deferred):
    """Do what triggerer and worker do with a deferred task: a new trigger, and a new operator, from what was stored."""
    path, arguments = deferred.trigger.serialize()
    assert path == f"{type(deferred.trigger).__module__}.{type(deferred.trigger).__name__}"
    event = asyncio.run(first_event(type(deferred.trigger)(**arguments)))
    return make_task().resume_execution(deferred.method_name, {"event": event}, context)


def run_sensor(mode, make_context, job_id, **parameters):
    """Run the sensor to its end in one of its modes, with a new operator for each process that Airflow would start."""

    def make_task():
        how = {"deferrable": True} if mode == "deferrable" else {"deferrable": False, "mode": mode}
        return AgentyJobSensor(**{"task_id": "wait", "job_id": job_id} | BRIEF | how | parameters)

    context = make_context(make_task())
    while True:
        try:
            return make_task().execute(context), context
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)
            time.sleep(0.02)
        except TaskDeferred as deferred:
            return defer_and_resume(make_task, context, deferred), context


@pytest.fixture
def contexts(make_context):
    """Make contexts, and keep them for those who see the task only raise."""
    made = []

    def make(*arguments, **parameters):
        made.append(make_context(*arguments, **parameters))
        return made[-1]

    make.made = made
    return make


def fail_status(status):
    return lambda sandbox, job_id: sandbox.fault(
        "GET", f"/jobs/{job_id}", status=status, body={"message": "No"}, times=None
    )


def fail_later(status):
    return lambda sandbox, job_id: sandbox.fault(
        "GET", f"/jobs/{job_id}", status=status, body={"message": "No"}, times=None, after=2
    )


def script(*states):
    def play(sandbox, job_id):
        for after, state in enumerate(states):
            job = sandbox.job(job_id) | {"status": state}
            times = None if after == len(states) - 1 else 1
            sandbox.fault("GET", f"/jobs/{job_id}", body=job, after=after, times=times)

    return play


def transient(sandbox, job_id):
    sandbox.set_status(job_id, "completed")
    # Each poll is tried five times before it counts as failed.
    sandbox.fault("GET", f"/jobs/{job_id}", status=503, times=13)


RUNNING = script("running")
BECOMES_ABORTED = script("queued", "running", "aborted")
BECOMES_STOPPED = script("running", "stopping", "stopped")

# What Agenty does, how the sensor is set, how it ends.
TABLE = {
    "success": (script("queued", "started", "running", "completing", "completed"), {}, None),
    "already completed": (script("completed"), {}, None),
    "upper case": (script("RUNNING", "Completed"), {}, None),
    "unknown state": (script("running", "hibernating", "hibernating", "completed"), {}, None),
    "transient errors": (transient, {}, None),
    "aborted": (BECOMES_ABORTED, {}, AgentyJobFailedError),
    "aborted at once": (script("aborted"), {}, AgentyJobFailedError),
    "aborted, soft_fail": (BECOMES_ABORTED, {"soft_fail": True}, AirflowSkipException),
    "aborted at once, soft_fail": (script("aborted"), {"soft_fail": True}, AirflowSkipException),
    "aborted, never_fail": (BECOMES_ABORTED, {"never_fail": True}, AirflowSkipException),
    "stopped": (BECOMES_STOPPED, {}, AgentyJobStoppedError),
    "stopped, skip": (BECOMES_STOPPED, {"on_stopped": "skip"}, AirflowSkipException),
    "stopped, soft_fail": (BECOMES_STOPPED, {"soft_fail": True}, AirflowSkipException),
    "timeout": (RUNNING, {"timeout": 0.3}, AirflowSensorTimeout),
    "timeout, soft_fail": (RUNNING, {"timeout": 0.3, "soft_fail": True}, AirflowSkipException),
    "timeout, never_fail": (RUNNING, {"timeout": 0.3, "never_fail": True}, AirflowSkipException),
    "wrong key": (fail_status(401), {}, AgentyAuthError),
    "wrong key, soft_fail": (fail_status(401), {"soft_fail": True}, AirflowSkipException),
    "key revoked meanwhile": (fail_later(403), {}, AgentyAuthError),
    "no such job": (fail_status(404), {}, AgentyNotFoundError),
    "no such job, soft_fail": (fail_status(404), {"soft_fail": True}, AirflowSkipException),
    "job deleted meanwhile": (fail_later(404), {}, AgentyNotFoundError),
    "job deleted meanwhile, soft_fail": (fail_later(404), {"soft_fail": True}, AirflowSkipException),
}


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", TABLE)
def test_the_sensor_ends_alike_in_each_mode(agenty_sandbox, contexts, mode, case):
    play, parameters, expected = TABLE[case]
    job_id = agenty_sandbox.start_job(AGENT)
    play(agenty_sandbox, job_id)

    if expected is None:
        returned, context = run_sensor(mode, contexts, str(job_id), **parameters)
        assert returned == job_id
        assert context["ti"].pushed["_link_AgentyAgentLink"].endswith(AGENT)
    else:
        with pytest.raises(expected) as error:
            run_sensor(mode, contexts, job_id, **parameters)
        assert type(error.value) is expected
    assert agenty_sandbox.stops == 0, "the sensor did not start the job"
    over = next((state for state in ("aborted", "stopped") if case.startswith(state)), None)
    assert pushed_state(contexts) == ("completed" if expected is None else over)


def pushed_state(contexts):
    """Return the state in the XCom with the job's figures; ``None`` if there is none."""
    (context,) = contexts.made
    return context["ti"].pushed.get("job", {}).get("status")


def run_operator(mode, make_context, **parameters):
    def make_task():
        return AgentyStartJobOperator(
            **{"task_id": "start", "agent_id": AGENT, "wait_for_completion": True, "poll_interval": 0.05}
            | {"deferrable": mode == "deferrable"}
            | parameters
        )

    context = make_context(make_task())
    try:
        return make_task().execute(context), context
    except TaskDeferred as deferred:
        return defer_and_resume(make_task, context, deferred), context


def answer_later(**fault):
    return lambda sandbox: sandbox.fault("GET", "/jobs/{id}", after=1, **{"times": None} | fault)


def play_states(*states):
    return lambda sandbox: sandbox.script(states)


RUNS = play_states("running")

# What Agenty does, how the operator is set, how it ends, how many stops are sent, the job's state in its XCom.
OPERATOR_TABLE = {
    "success": (play_states("queued", "running", "completed"), {}, None, 0, "completed"),
    "unknown state": (play_states("hibernating", "hibernating", "completed"), {}, None, 0, "completed"),
    "transient errors": (
        # In a worker each poll is tried five times before it counts as failed.
        lambda sandbox: (play_states("running", "completed")(sandbox), answer_later(status=503, times=7)(sandbox)),
        {},
        None,
        0,
        "completed",
    ),
    "aborted": (play_states("running", "aborted"), {}, AgentyJobFailedError, 0, "aborted"),
    "stopped": (play_states("running", "stopped"), {}, AgentyJobStoppedError, 0, "stopped"),
    "stopped, skip": (
        play_states("running", "stopped"),
        {"on_stopped": "skip"},
        AirflowSkipException,
        0,
        "stopped",
    ),
    "timeout": (RUNS, {"timeout": 0.3}, AgentyTimeoutError, 1, None),
    "timeout, no cancel": (RUNS, {"timeout": 0.3, "cancel_on_timeout": False}, AgentyTimeoutError, 0, None),
    "failed pages": (
        play_states({"status": "completed", "pages_total": 10, "pages_processed": 10, "pages_failed": 4}),
        {"max_failed_ratio": 0.3},
        AgentyJobFailedError,
        0,
        "completed",
    ),
    "key revoked": (answer_later(status=401, body={"message": "No"}), {}, AgentyAuthError, 0, None),
    "job deleted": (answer_later(status=404, body={"message": "No"}), {}, AgentyNotFoundError, 0, None),
}


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("mode", ["sync", "deferrable"])
@pytest.mark.parametrize("case", OPERATOR_TABLE)
def test_the_waiting_operator_ends_alike_in_both_modes(agenty_sandbox, contexts, mode, case):
    play, parameters, expected, stops, state = OPERATOR_TABLE[case]
    play(agenty_sandbox)

    if expected is None:
        returned, _ = run_operator(mode, contexts, **parameters)
        assert [returned] == agenty_sandbox.started_jobs
    else:
        with pytest.raises(expected) as error:
            run_operator(mode, contexts, **parameters)
        assert type(error.value) is expected
    assert agenty_sandbox.stops == stops
    assert pushed_state(contexts) == state


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("mode", ["sync", "deferrable"])
def test_the_operator_tells_of_a_key_that_is_refused(agenty_sandbox, make_context, mode):
    agenty_sandbox.fault("GET", "/jobs/{id}", status=401, body={"message": "No"}, times=None)

    with pytest.raises(AgentyAuthError):
        run_operator(mode, make_context)
    assert agenty_sandbox.stops == 0


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_cannot_be_asked_for_long_is_a_poll_error_not_a_failed_job(
    agenty_sandbox, make_context, mode, monkeypatch
):
    from airflow_provider_agenty.exceptions import AgentyUnavailableError
    from airflow_provider_agenty.waiting import job_watch

    monkeypatch.setattr(job_watch, "MAX_FAILED_POLLS", 2)
    monkeypatch.setattr(job_watch, "MAX_FAILING_SECONDS", 0.1)
    monkeypatch.setenv(
        "AIRFLOW_CONN_AGENTY_DEFAULT",
        agenty_sandbox.connection_json.replace('"conn_type"', '"extra": {"max_attempts": 1}, "conn_type"'),
    )
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.fault("GET", f"/jobs/{job_id}", status=503, times=None)

    # In reschedule mode each poke is a process of its own, so only the sensor's timeout bounds it.
    expected = AirflowSensorTimeout if mode == "reschedule" else AgentyUnavailableError
    with pytest.raises(expected):
        run_sensor(mode, make_context, job_id, timeout=1 if mode == "reschedule" else 30)


@pytest.mark.parametrize("mode", MODES)
def test_without_time_the_job_is_polled_once(agenty_sandbox, make_context, mode):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")

    assert run_sensor(mode, make_context, job_id, timeout=0)[0] == job_id


def test_a_job_that_is_over_already_is_not_deferred_for(agenty_sandbox, make_context):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    task = AgentyJobSensor(task_id="wait", job_id=job_id, deferrable=True)

    assert task.execute(make_context(task)) == job_id


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("job_id", [None, "", "None", "seven", "12/stop", -1, True])
def test_a_job_id_that_can_be_none_is_refused_before_anything_is_sent(agenty_sandbox, make_context, mode, job_id):
    with pytest.raises(AgentyInputError, match="job_id"):
        run_sensor(mode, make_context, job_id)
    assert agenty_sandbox.requests == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"poke_interval": 0, "deferrable": True},
        {"poke_interval": 10**10},
        {"timeout": timedelta.max},
        {"deferrable": "no"},
        {"start_from_trigger": "False"},
    ],
)
def test_what_airflow_takes_and_no_wait_can_have_is_refused_when_the_dag_file_is_read(parameters):
    with pytest.raises(AgentyInputError, match=next(iter(parameters))):
        AgentyJobSensor(task_id="wait", job_id=7, **parameters)


def test_a_sensor_in_a_worker_may_look_without_a_pause():
    assert AgentyJobSensor(task_id="wait", job_id=7, deferrable=False, poke_interval=0).poke_interval == 0


def test_the_deadline_of_a_deferred_sensor_is_its_timeout_or_its_execution_timeout(agenty_sandbox, make_context):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "running")

    def deadline(**parameters):
        task = AgentyJobSensor(task_id="wait", job_id=job_id, deferrable=True, **parameters)
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(make_context(task))
        return deferred.value.trigger.deadline - time.time()

    assert deadline(timeout=500) == pytest.approx(500, abs=30)
    assert deadline(timeout=500, execution_timeout=timedelta(seconds=100)) == pytest.approx(100, abs=30)


@pytest.mark.agenty_sandbox(manual=True)
def test_a_wait_without_a_worker_is_an_ordinary_one_where_airflow_renders_nothing_in_the_triggerer(
    agenty_sandbox, make_context
):
    from airflow.triggers.base import BaseTrigger

    job_id = agenty_sandbox.start_job(AGENT)
    task = AgentyJobSensor(
        task_id="wait", job_id=str(job_id), deferrable=True, start_from_trigger=True, end_from_trigger=True
    )

    assert task.start_from_trigger is hasattr(BaseTrigger, "render_template_fields")
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(make_context(task))
    assert deferred.value.trigger.job_id == job_id
