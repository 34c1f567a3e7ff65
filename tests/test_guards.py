"""max_credits, stall_timeout and queue_timeout end alike in each way to wait, with the same starts and stops."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.exceptions import AirflowFailException, AirflowRescheduleException, TaskDeferred

from airflow_provider_agenty import airflow_compat
from airflow_provider_agenty.airflow_compat import AirflowSkipException
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import (
    AgentyBudgetError,
    AgentyInputError,
    AgentyJobStoppedError,
    AgentyStalledError,
    AgentyTimeoutError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger
from airflow_provider_agenty.waiting import job_watch
from airflow_provider_agenty.waiting.job_watch import JobWatch
from airflow_provider_agenty.waiting.outcome import Outcome

AGENT = "45l0wewqzk"
INTERVAL = 0.02
SENSOR_MODES = ("poke", "reschedule", "deferrable")
OPERATOR_MODES = ("operator", "deferred operator")
STARTED_IN_TRIGGERER = "started in the triggerer"
MODES = ("wait_for_job", *OPERATOR_MODES, *SENSOR_MODES, STARTED_IN_TRIGGERER)

needs_store = pytest.mark.skipif(not airflow_compat.HAS_TASK_STATE_STORE, reason="stored on Airflow 3.3 and later only")

pytestmark = pytest.mark.agenty_sandbox(manual=True)


async def first_event(trigger):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger sent no event")


def resume(task, context, deferred):
    """Do what triggerer and worker do with a deferred task: a trigger from what was stored, and what it sends."""
    event = asyncio.run(first_event(type(deferred.trigger)(**deferred.trigger.serialize()[1])))
    return task.resume_execution(deferred.method_name, {"event": event}, context)


def run_to_its_end(make_task, context):
    """Run a task with a new operator for each process that Airflow would start."""
    for _ in range(1000):
        try:
            return make_task().execute(context)
        except AirflowRescheduleException:
            context["ti"].first_reschedule_date = context["ti"].first_reschedule_date or datetime.now(UTC)
            time.sleep(INTERVAL)
        except TaskDeferred as deferred:
            return resume(make_task(), context, deferred)
    raise AssertionError("the task does not end")


def make_operator(**parameters):
    given = {"task_id": "start", "agent_id": AGENT, "wait_for_completion": True, "poll_interval": INTERVAL}
    return AgentyStartJobOperator(**given | {"deferrable": False, "timeout": 20} | parameters)


def make_sensor(mode, job_id, **parameters):
    how = {"deferrable": True} if mode == "deferrable" else {"deferrable": False, "mode": mode}
    given = {"task_id": "wait", "job_id": job_id, "poke_interval": INTERVAL, "timeout": 20}
    return AgentyJobSensor(**given | how | parameters)


def start_in_triggerer(job_id, context, guards):
    """Do what Airflow does with a sensor that no worker has begun."""
    task = make_sensor("deferrable", job_id, start_from_trigger=True, **guards)
    if task.start_trigger_args is None:
        pytest.skip("this Airflow starts no task in the triggerer")
    event = asyncio.run(first_event(AgentyJobTrigger(**task.start_trigger_args.trigger_kwargs)))
    return task.execute_complete(context, event)


@pytest.fixture
def run(agenty_sandbox, make_context, state_store):
    """Wait in one of the modes for a job that goes as a script says."""

    def wait(mode, script, **guards):
        agenty_sandbox.script(script)
        if mode in OPERATOR_MODES:
            how = {"deferrable": mode == "deferred operator"}
            context = make_context(make_operator(), store=state_store)
            return run_to_its_end(lambda: make_operator(**how, **guards), context)
        job_id = agenty_sandbox.start_job(AGENT)
        if mode == "wait_for_job":
            return AgentyHook().wait_for_job(job_id, poll_interval=INTERVAL, timeout=20, **guards)
        context = make_context(make_sensor("poke", job_id), store=state_store)
        if mode == STARTED_IN_TRIGGERER:
            return start_in_triggerer(job_id, context, guards)
        return run_to_its_end(lambda: make_sensor(mode, job_id, **guards), context)

    return wait


def running(pages, **fields):
    """Let a job run that has paid for each of its pages so far."""
    return {"status": "running", "pages_total": 10, "pages_processed": pages, "pages_credit": pages, **fields}


def created(seconds_ago, status="queued"):
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"status": status, "created_at": moment.isoformat().replace("+00:00", "Z")}


SLOW = [running(pages) for pages in range(10) for _ in range(3)]
DONE = {"status": "completed", "pages_credit": 9}

# What Agenty says, how the wait is guarded, how it ends, how many stops a guard sends: by the operator, by others.
TABLE = {
    "over its budget": (["queued", running(3), running(7)], {"max_credits": 5}, AgentyBudgetError, (1, 1)),
    "over nothing at all": (["queued", running(0), running(1)], {"max_credits": 0}, AgentyBudgetError, (1, 1)),
    "over half a credit": ([running(1)], {"max_credits": 0.5}, AgentyBudgetError, (1, 1)),
    "over in an unknown state": ([running(6, status="odd")], {"max_credits": 5}, AgentyBudgetError, (1, 1)),
    "completed over it": ([running(3), DONE], {"max_credits": 8}, AgentyBudgetError, (0, 0)),
    "stopping already": ([running(6, status="stopping")], {"max_credits": 5}, AgentyBudgetError, (0, 0)),
    "stopped for it": ([running(6, status="stopped")], {"max_credits": 5}, AgentyBudgetError, (0, 0)),
    "stopped below it": ([running(3, status="stopped")], {"max_credits": 5}, AgentyJobStoppedError, (0, 0)),
    "within its budget": ([running(3), running(9), DONE], {"max_credits": 9}, None, (0, 0)),
    "no credits told": ([running(3, pages_credit=None), "completed"], {"max_credits": 0}, None, (0, 0)),
    "stalled": ([running(3), running(4)], {"stall_timeout": 0.3}, AgentyStalledError, (1, 0)),
    "stalled in completing": ([running(9, status="completing")], {"stall_timeout": 0.3}, AgentyStalledError, (1, 0)),
    "slow": ([*SLOW, DONE], {"stall_timeout": 2}, None, (0, 0)),
    "queued since it was made": (["submitted", created(60)], {"queue_timeout": 30}, AgentyStalledError, (1, 0)),
    "queued, no time told": (
        [{"status": "queued", "created_at": None}],
        {"queue_timeout": 0.3},
        AgentyStalledError,
        (1, 0),
    ),
    "queued, a time that is none": (
        [{"status": "queued", "created_at": "0001-01-01T00:00:00"}, "completed"],
        {"queue_timeout": 30},
        None,
        (0, 0),
    ),
    "queued for a while": ([created(5), created(5, "running"), "completed"], {"queue_timeout": 3600}, None, (0, 0)),
    "runs, and was made long ago": ([created(60, "running"), "completed"], {"queue_timeout": 30}, None, (0, 0)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", TABLE)
def test_a_guard_ends_the_wait_alike_in_each_mode(agenty_sandbox, run, case, mode):
    script, guards, expected, (by_operator, by_others) = TABLE[case]
    if mode == "reschedule" and "stall_timeout" in guards and not airflow_compat.HAS_TASK_STATE_STORE:
        pytest.skip("refused before Airflow 3.3")

    if expected is None:
        run(mode, script, **guards)
    else:
        with pytest.raises(expected) as raised:
            run(mode, script, **guards)
        assert type(raised.value) is expected
    assert agenty_sandbox.stops == (by_operator if mode in OPERATOR_MODES else by_others)
    assert len(agenty_sandbox.jobs) == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_error_has_the_figures(run, mode):
    with pytest.raises(AgentyBudgetError, match=r"has cost 7 credits, more than max_credits=5 allows") as raised:
        run(mode, [running(3), running(7)], max_credits=5)

    assert isinstance(raised.value, AirflowFailException)
    for error in (raised.value, copy.deepcopy(raised.value), pickle.loads(pickle.dumps(raised.value))):
        assert (error.credits, error.max_credits) == (7, 5)
        assert error.job.status == "stopped"


@pytest.mark.parametrize("mode", OPERATOR_MODES)
@pytest.mark.parametrize("guard", [{"stall_timeout": 0.2}, {"queue_timeout": 0.2}])
def test_cancel_on_timeout_says_whether_a_job_that_stands_still_is_stopped(agenty_sandbox, run, mode, guard):
    with pytest.raises(AgentyStalledError) as raised:
        run(mode, ["queued"], cancel_on_timeout=False, **guard)

    assert isinstance(raised.value, AgentyTimeoutError)
    assert next(iter(guard)) in str(raised.value)
    assert agenty_sandbox.stops == 0


@pytest.mark.parametrize("mode", SENSOR_MODES)
def test_soft_fail_skips_and_the_job_is_stopped_all_the_same(agenty_sandbox, run, mode):
    with pytest.raises(AirflowSkipException):
        run(mode, [running(7)], max_credits=5, soft_fail=True)

    assert agenty_sandbox.stops == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("acted", [False, True], ids=["refused", "answer lost"])
def test_a_stop_that_fails_is_repeated_only_if_the_job_goes_on(agenty_sandbox, run, monkeypatch, mode, acted):
    monkeypatch.setattr(job_watch, "SECONDS_BETWEEN_STOPS", 0.01)
    agenty_sandbox.fault("GET", "/jobs/*/stop", status=503, body={"message": "No"}, acted=acted)

    with pytest.raises(AgentyBudgetError, match=r"It is stopped\.$"):
        run(mode, [running(7)], max_credits=5)

    assert agenty_sandbox.stops == 1


def test_a_job_that_could_not_be_stopped_is_told_of(agenty_sandbox, run, monkeypatch):
    monkeypatch.setattr(job_watch, "SECONDS_BETWEEN_STOPS", 0.01)
    agenty_sandbox.fault("GET", "/jobs/*/stop", status=503, body={"message": "No"}, times=None)

    with pytest.raises(AgentyBudgetError, match="It could not be stopped: stop it in Agenty"):
        run("deferred operator", [running(7)], max_credits=5)


def test_the_trigger_stops_the_job_before_its_event(agenty_sandbox):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, **running(7))

    event = asyncio.run(first_event(AgentyJobTrigger(job_id, poll_interval=INTERVAL, max_credits=5)))

    assert agenty_sandbox.stopped_jobs == [job_id]
    assert (event["status"], event["max_credits"], event["job"]["status"]) == ("budget", 5.0, "stopped")


# Tries and restarts


@pytest.mark.parametrize("mode", OPERATOR_MODES)
@pytest.mark.parametrize("state", ["running", "stopping", "stopped", "completed"])
@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_retry_judges_the_job_again_and_starts_no_other(
    agenty_sandbox, make_context, state_store, mode, state, is_remembered
):
    store = state_store if is_remembered else None

    def make_task():
        return make_operator(deferrable=mode == "deferred operator", max_credits=5, retries=1)

    first = make_operator(deferrable=True)
    with pytest.raises(TaskDeferred):
        first.execute(make_context(first, store=store, max_tries=1))
    (job_id,) = agenty_sandbox.started_jobs
    agenty_sandbox.set_status(job_id, **running(7, status=state))

    with pytest.raises(AgentyBudgetError):
        run_to_its_end(make_task, make_context(make_task(), store=store, max_tries=1, try_number=2))

    assert agenty_sandbox.starts == 1
    assert agenty_sandbox.stops == (state == "running")


@pytest.mark.parametrize(("seconds_ago", "pages", "stalls"), [(60, 0, True), (5, 0, False), (60, 3, False)])
def test_a_new_wait_counts_from_what_agenty_tells(seconds_ago, pages, stalls):
    """As after a triggerer's restart: pages were fetched at times that Agenty does not tell."""
    started_at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    job = Job(7, "running", pages_processed=pages, created_at=started_at, started_at=started_at)
    watch = JobWatch(7, stall_timeout=30, log=logging.getLogger("test"))

    assert watch.take(job) is None
    outcome = watch.take(job)
    assert (outcome is not None and outcome.status == "stalled") == stalls


@pytest.mark.parametrize("change", ["status", "pages_processed", "pages_succeeded", "pages_failed", "pages_credit"])
def test_each_figure_that_changes_counts(change):
    watch = JobWatch(7, stall_timeout=30, log=logging.getLogger("test"))
    before = {"status": "started", "pages_processed": 3}

    assert watch.take(Job(7, **before), now=100) is None
    assert watch.take(Job(7, **before | {change: "running" if change == "status" else 9}), now=140) is None
    assert watch.take(Job(7, **before), now=165) is None
    assert watch.take(Job(7, **before), now=194) is None
    assert watch.take(Job(7, **before), now=195).status == "stalled"


@pytest.mark.parametrize("hours_ahead", [-5, 5])
def test_agentys_clock_counts_and_not_that_of_this_machine(agenty_sandbox, hours_ahead):
    now = datetime.now(UTC) + timedelta(hours=hours_ahead)
    headers = {"Date": now.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    job_id = agenty_sandbox.start_job(AGENT)
    job = agenty_sandbox.job(job_id) | {"created_at": (now - timedelta(seconds=20)).isoformat()}
    agenty_sandbox.fault("GET", f"/jobs/{job_id}", body=job, headers=headers, times=None)

    with pytest.raises(AgentyTimeoutError) as raised:
        AgentyHook().wait_for_job(job_id, poll_interval=INTERVAL, timeout=0.2, queue_timeout=30)
    assert not isinstance(raised.value, AgentyStalledError)
    with pytest.raises(AgentyStalledError):
        AgentyHook().wait_for_job(job_id, poll_interval=INTERVAL, timeout=0.2, queue_timeout=15)


@needs_store
def test_a_change_is_stored_once_and_a_retry_begins_anew(agenty_sandbox, make_context, state_store):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, **running(3))

    def poke(**task_instance):
        task = make_sensor("reschedule", job_id, stall_timeout=0.3)
        try:
            task.poke(make_context(task, store=state_store, **task_instance))
        except AgentyStalledError:
            return "stalled"
        return [key for key, _ in state_store.written].count("agenty_change")

    assert [poke(), poke()] == [1, 1]
    time.sleep(0.3)
    assert poke() == "stalled"
    assert poke(try_number=2) == 2


# What is said, and what is refused


def test_a_progress_line_says_how_far_the_budget_is_used(caplog):
    caplog.set_level(logging.INFO)

    JobWatch(7, max_credits=500, log=logging.getLogger("test")).take(Job(7, **running(35, pages_total=120)))

    assert caplog.messages == ["Job 7 is running: 35/120 pages (29 %), 35 of at most 500 credits"]


def test_a_large_budget_is_written_out():
    assert (
        Job(7, "running", pages_credit=0).describe(max_credits=12_500_000.0).endswith("0 of at most 12500000 credits")
    )


def test_the_new_outcomes_survive_the_way_through_the_database():
    job = Job(7, **running(7))
    for outcome in (Outcome("budget", 7, "dear", job, max_credits=5.5), Outcome("stalled", 7, "still", job)):
        assert Outcome.from_event(outcome.to_dict()) == outcome


@pytest.mark.parametrize(("stall_timeout", "warnings"), [(9, 1), (10, 0)])
def test_a_stall_that_is_shorter_than_the_interval_is_warned_of(caplog, stall_timeout, warnings):
    JobWatch(7, stall_timeout=stall_timeout, poll_interval=10, log=logging.getLogger("test"))

    assert caplog.text.count("is shorter than the 10 seconds between two polls") == warnings


def test_a_stall_across_reschedules_is_refused_where_nothing_is_remembered(monkeypatch):
    monkeypatch.setattr(airflow_compat, "HAS_TASK_STATE_STORE", False)

    with pytest.raises(AgentyInputError, match="stall_timeout"):
        make_sensor("reschedule", 7, stall_timeout=60)
    make_sensor("reschedule", 7, queue_timeout=60, max_credits=5)
    make_sensor("poke", 7, stall_timeout=60)
    make_sensor("reschedule", 7, stall_timeout=60, deferrable=True)
