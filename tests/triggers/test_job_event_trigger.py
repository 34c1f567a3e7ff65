"""The trigger of asset watchers: each job that completes fires once, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.triggers import agenty as triggers
from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger
from airflow_provider_agenty.watching import job_feed, watcher_state
from tests.features import has, needs_asset_watchers, needs_shared_streams

if has("airflow.triggers.shared_stream"):
    from airflow.sdk import Asset
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import (
        AssetStateStoreResult,
        ErrorResponse,
        GetAssetStateStoreByName,
        OKResponse,
        SetAssetStateStoreByName,
    )
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors
    from airflow.triggers.shared_stream import AckTimeout, SharedStreamManager

AGENT, OTHER = "45l0wewqzk", "lmqdjwd972"
INTERVAL = 0.05

pytestmark = pytest.mark.agenty_sandbox(manual=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Let events follow each other as they come: how far apart they are has a test of its own."""
    monkeypatch.setattr(triggers, "SECONDS_BEFORE_LAST_EVENT", 0)


class Comms:
    """Airflow's supervisor, as far as the asset state store goes: what it holds outlives a triggerer."""

    def __init__(self):
        self.values = {}
        self.failing = 0
        self.reads = self.writes = 0

    async def asend(self, message):
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise ConnectionError("the database is away")
        match message:
            case GetAssetStateStoreByName(name=name, key=key):
                self.reads += 1
                if (name, key) in self.values:
                    return AssetStateStoreResult(value=self.values[name, key])
                return ErrorResponse(error="ASSET_STORE_NOT_FOUND", detail={"key": key})
            case SetAssetStateStoreByName(name=name, key=key, value=value):
                self.writes += 1
                self.values[name, key] = json.loads(json.dumps(value))
                return OKResponse(ok=True)
        raise AssertionError(message)

    def state(self, asset="books", agent_id=AGENT):
        return self.values.get((asset, f"agenty_jobs/agenty_default/{agent_id or '*'}"))


@pytest.fixture
def comms(monkeypatch):
    if not has("airflow.triggers.shared_stream"):
        pytest.skip("needs Airflow 3.3's shared streams and asset state store")
    comms = Comms()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return comms


class Triggerer:
    """
    What Airflow's triggerer does with the triggers of asset watchers, with its real shared streams and state store.

    :param shared: whether it knows shared streams, as from 3.3 on.
    :param stores_events: whether it tells at once that an event was stored; otherwise it never does.
    """

    def __init__(self, *, shared=True, stores_events=True):
        self.shared = shared
        self.stores_events = stores_events
        self.manager = SharedStreamManager() if shared else None
        self.events = []
        self.tasks = []

    def watch(
        self,
        agent_id=AGENT,
        assets=("books",),
        interval=INTERVAL,
        *,
        removed_after=None,
        stores_events=True,
        **arguments,
    ):
        _, arguments = AgentyJobEventTrigger(agent_id, poll_interval=interval, **arguments).serialize()
        trigger = AgentyJobEventTrigger(**json.loads(json.dumps(arguments)))
        run = self._run_shared if self.shared else self._run_alone
        if self.shared:
            trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name=name) for name in assets])
        self.tasks.append(asyncio.create_task(run(len(self.tasks) + 1, trigger, removed_after, stores_events)))
        return self.tasks[-1]

    async def _run_shared(self, trigger_id, trigger, removed_after, stores_events):
        key = trigger.shared_stream_key()
        stream = self.manager.subscribe(trigger_id=trigger_id, trigger=trigger, key=key)
        taken = 0
        try:
            async for event in trigger.filter_shared_stream(stream):
                await asyncio.sleep(0)
                sequence = self.manager.bind_pending_event(trigger_id=trigger_id, key=key)
                self.events.append(event.payload)
                if self.stores_events and stores_events:
                    self.manager.confirm_persisted([sequence])
                taken += 1
                if taken == removed_after:
                    asyncio.current_task().cancel()
        finally:
            await self.manager.unsubscribe(trigger_id, key)

    async def _run_alone(self, _, trigger, *__):
        async for event in trigger.run():
            await asyncio.sleep(0)
            self.events.append(event.payload)

    @property
    def fired(self):
        return [event["job_id"] for event in self.events]

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.manager is not None:
            await self.manager.stop_all()
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


@pytest.fixture(params=[pytest.param("shared", marks=needs_shared_streams), "alone"])
def triggerer(request):
    """Make a triggerer: of Airflow 3.3, and of one before."""
    if request.param == "shared":
        request.getfixturevalue("comms")
    return lambda **options: Triggerer(shared=request.param == "shared", **options)


def run(coroutine):
    """Run to the end; no task may be left."""

    async def run_and_look_around():
        async with asyncio.timeout(60):
            result = await coroutine
        others = asyncio.all_tasks() - {asyncio.current_task()}
        _, left = await asyncio.wait(others, timeout=5) if others else ((), ())
        assert not left, left
        return result

    return asyncio.run(run_and_look_around())


def to_the_end(test):
    """Let pytest run a coroutine, as :func:`run` does."""

    @functools.wraps(test)
    def run_test(**fixtures):
        run(test(**fixtures))

    return run_test


async def eventually(condition, problem="it does not happen"):
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, problem
        await asyncio.sleep(0.005)


def looks(sandbox):
    return [request for request in sandbox.requests if request.path == "/jobs" and request.query["offset"] == "0"]


async def looks_pass(sandbox, count=3):
    """With three more looks, one has begun and been taken in since now."""
    before = len(looks(sandbox))
    await eventually(lambda: len(looks(sandbox)) >= before + count, "nobody looks at the jobs")


@contextlib.asynccontextmanager
async def watching(triggerer, sandbox):
    """Give a triggerer whose watcher has begun: what completes from now on fires."""
    async with triggerer() as airflow:
        airflow.watch()
        await looks_pass(sandbox)
        yield airflow


def start(sandbox, agent_id=AGENT, status="running", **options):
    job_id = sandbox.start_job(agent_id, **options)
    sandbox.set_status(job_id, status)
    return job_id


# What fires


ENDS = ("completed", "aborted", "stopped", "failed")


@pytest.mark.parametrize("statuses", [("aborted", "failed"), ("stopped",), ENDS])
@to_the_end
async def test_jobs_fire_that_end_as_asked(agenty_sandbox, triggerer, statuses):
    async with triggerer() as airflow:
        airflow.watch(statuses=statuses)
        await looks_pass(agenty_sandbox)
        jobs = {start(agenty_sandbox): status for status in ENDS}
        await looks_pass(agenty_sandbox)
        assert airflow.fired == []
        for job_id, status in jobs.items():
            agenty_sandbox.set_status(job_id, status)
        await eventually(lambda: len(airflow.fired) == len(statuses))
        await looks_pass(agenty_sandbox)
        assert {event["job_id"]: event["status"] for event in airflow.events} == {
            job_id: status for job_id, status in jobs.items() if status in statuses
        }
        assert len(airflow.fired) == len(statuses)


@needs_shared_streams
@to_the_end
async def test_what_was_seen_is_kept_for_each_set_of_statuses(agenty_sandbox, comms):
    async with Triggerer() as airflow:
        airflow.watch()
        airflow.watch(statuses=("failed", "aborted"))
        await looks_pass(agenty_sandbox)
        completed, aborted = start(agenty_sandbox), start(agenty_sandbox)
        await looks_pass(agenty_sandbox)
    agenty_sandbox.set_status(completed, "completed")
    agenty_sandbox.set_status(aborted, "aborted")
    kept = {key.removeprefix(f"agenty_jobs/agenty_default/{AGENT}") for _, key in comms.values}
    assert kept == {"", "/aborted-failed"}
    assert comms.state() == {"newest": aborted, "pending": [completed, aborted]}

    async with Triggerer() as airflow:
        airflow.watch(statuses=("aborted", "failed"))
        await eventually(lambda: airflow.fired)
        await looks_pass(agenty_sandbox)
        assert airflow.fired == [aborted]
    async with Triggerer() as airflow:
        airflow.watch()
        await eventually(lambda: airflow.fired)
        await looks_pass(agenty_sandbox)
        assert airflow.fired == [completed]


STORED_BY_THE_RELEASE_BEFORE = {"agent_id": AGENT, "agenty_conn_id": "agenty_default", "poll_interval": 60.0}


def test_a_trigger_of_the_release_before_watches_completed_jobs_and_stays_as_it_is():
    trigger = AgentyJobEventTrigger(**STORED_BY_THE_RELEASE_BEFORE)
    assert trigger.statuses == ("completed",)
    assert trigger.serialize()[1] == STORED_BY_THE_RELEASE_BEFORE


def test_statuses_are_kept_in_one_order_each_once():
    trigger = AgentyJobEventTrigger(statuses=["stopped", "aborted", "stopped"])
    _, arguments = trigger.serialize()
    assert json.loads(json.dumps(arguments)) == arguments
    assert arguments["statuses"] == ["aborted", "stopped"]
    assert AgentyJobEventTrigger(**arguments).statuses == trigger.statuses == ("aborted", "stopped")
    assert AgentyJobEventTrigger(statuses="aborted").statuses == ("aborted",)


@pytest.mark.parametrize("misspelled", ["status", "agent", "interval"])
def test_a_parameter_that_is_not_known_is_refused(misspelled):
    with pytest.raises(AgentyInputError, match=f"has no parameter {misspelled}"):
        AgentyJobEventTrigger(**{misspelled: "completed"})


@pytest.mark.parametrize("statuses", [(), None, "running", ["completed", "done"], [None]])
def test_other_statuses_are_refused(statuses):
    with pytest.raises(AgentyInputError, match=r"^statuses.*'completed', 'aborted', 'stopped' or 'failed'"):
        AgentyJobEventTrigger(statuses=statuses)


def test_what_else_is_given_goes_to_airflow(monkeypatch):
    given = {}

    def init(self, **kwargs):
        given.update(kwargs)

    monkeypatch.setattr(AgentyJobEventTrigger.__mro__[1], "__init__", init)
    AgentyJobEventTrigger(AGENT, queue="events")
    assert given == {"queue": "events"}


@to_the_end
async def test_a_completed_job_fires_once(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        job_id = start(agenty_sandbox)
        await looks_pass(agenty_sandbox)
        assert airflow.fired == []
        agenty_sandbox.set_status(job_id, "completed")
        await eventually(lambda: airflow.fired)
        await looks_pass(agenty_sandbox)
        assert airflow.fired == [job_id]


@to_the_end
async def test_a_job_that_starts_and_completes_between_two_looks_fires(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        job_id = start(agenty_sandbox, status="completed")
        await eventually(lambda: airflow.fired)
        assert airflow.fired == [job_id]


@to_the_end
async def test_jobs_fire_as_they_complete_not_as_they_started(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        first, second, third = (start(agenty_sandbox) for _ in range(3))
        for number, job_id in enumerate([third, first, second], 1):
            await looks_pass(agenty_sandbox)
            agenty_sandbox.set_status(job_id, "completed")
            await eventually(lambda number=number: len(airflow.fired) == number)
        await looks_pass(agenty_sandbox)
        assert airflow.fired == [third, first, second]


@to_the_end
async def test_jobs_of_one_look_fire_in_the_order_of_their_completion(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        gap = agenty_sandbox.fault("GET", "/jobs", status=503, times=None)
        await asyncio.to_thread(gap.wait)
        job_ids = [start(agenty_sandbox) for _ in range(3)]
        for job_id, second in zip(job_ids, [2, 3, 1], strict=True):
            agenty_sandbox.set_status(job_id, "completed", completed_at=f"2026-01-01T00:00:0{second}.1234567Z")
        gap.remove()
        await eventually(lambda: len(airflow.fired) == 3)
        assert airflow.fired == [job_ids[2], job_ids[0], job_ids[1]]


@to_the_end
async def test_jobs_of_other_agents_do_not_fire_unless_all_are_watched(agenty_sandbox, comms):
    async with Triggerer() as one, Triggerer() as every:
        one.watch(AGENT)
        every.watch(None)
        await looks_pass(agenty_sandbox)
        other, own = start(agenty_sandbox, OTHER, "completed"), start(agenty_sandbox, AGENT, "completed")
        await eventually(lambda: one.fired and len(every.fired) == 2)
        await looks_pass(agenty_sandbox)
        assert one.fired == [own]
        assert sorted(every.fired) == sorted([other, own])


@to_the_end
async def test_a_job_of_agentys_own_scheduler_fires(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        job_id = start(agenty_sandbox, status="completed", is_scheduled=True)
        await eventually(lambda: airflow.events)
        assert [(event["job_id"], event["is_scheduled"]) for event in airflow.events] == [(job_id, True)]


@pytest.mark.parametrize("status", ["stopped", "aborted", "failed"])
@to_the_end
async def test_a_job_that_ends_otherwise_does_not_fire_and_is_forgotten(agenty_sandbox, comms, status):
    async with watching(Triggerer, agenty_sandbox) as airflow:
        at_once, later = start(agenty_sandbox, status=status), start(agenty_sandbox)
        await eventually(lambda: comms.state() == {"newest": later, "pending": [later]})
        agenty_sandbox.set_status(later, status)
        await eventually(lambda: comms.state() == {"newest": later, "pending": []})
        assert at_once
        assert airflow.fired == []


@to_the_end
async def test_a_job_in_a_state_that_is_not_known_is_waited_for(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        job_id = start(agenty_sandbox, status="meditating")
        await looks_pass(agenty_sandbox)
        agenty_sandbox.set_status(job_id, "completed")
        await eventually(lambda: airflow.fired)
        assert airflow.fired == [job_id]


@to_the_end
async def test_an_empty_first_page_that_contradicts_its_total_hides_no_job_of_before(agenty_sandbox, triggerer):
    agenty_sandbox.add_older_jobs(AGENT, 30)
    agenty_sandbox.fault("GET", "/jobs", times=1, body={"total": 30, "limit": 1000, "offset": 0, "result": []})
    async with watching(triggerer, agenty_sandbox) as airflow:
        await looks_pass(agenty_sandbox)
        job_id = start(agenty_sandbox)
        await looks_pass(agenty_sandbox)
        agenty_sandbox.set_status(job_id, "completed")
        await eventually(lambda: airflow.fired)
        assert airflow.fired == [job_id]


@to_the_end
async def test_of_the_jobs_before_the_first_look_only_active_ones_fire(agenty_sandbox, triggerer):
    agenty_sandbox.add_older_jobs(AGENT, 30)
    over, active = start(agenty_sandbox, status="completed"), start(agenty_sandbox)
    async with watching(triggerer, agenty_sandbox) as airflow:
        agenty_sandbox.set_status(active, "completed")
        await eventually(lambda: airflow.fired)
        await looks_pass(agenty_sandbox)
        assert over not in airflow.fired
        assert airflow.fired == [active]


def test_the_last_of_several_events_comes_when_airflow_has_made_a_run_of_the_others(
    agenty_sandbox, triggerer, monkeypatch
):
    monkeypatch.setattr(triggers, "SECONDS_BEFORE_LAST_EVENT", 2)

    async def main():
        async with watching(triggerer, agenty_sandbox) as airflow:
            gap = agenty_sandbox.fault("GET", "/jobs", status=503, times=None)
            await asyncio.to_thread(gap.wait)
            job_ids = [start(agenty_sandbox, status="completed") for _ in range(4)]
            gap.remove()
            times = []
            for number in range(1, 5):
                await eventually(lambda number=number: len(airflow.fired) >= number)
                times.append(time.monotonic())
            job_ids.append(start(agenty_sandbox, status="completed"))
            await eventually(lambda: len(airflow.fired) == 5)
            times.append(time.monotonic())
            assert sorted(airflow.fired) == job_ids
            return times

    times = run(main())
    assert times[3] - times[2] >= 1.9
    assert times[4] - times[3] >= 1.9


@to_the_end
async def test_the_first_job_of_an_account_fires(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        job_id = start(agenty_sandbox, status="completed")
        await eventually(lambda: airflow.fired)
        assert airflow.fired == [job_id]


@pytest.mark.agenty_sandbox(page_cap=100)
@to_the_end
async def test_hundreds_of_jobs_between_two_looks_all_fire(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        gap = agenty_sandbox.fault("GET", "/jobs", status=503, times=None)
        await asyncio.to_thread(gap.wait)
        job_ids = [start(agenty_sandbox, status="completed") for _ in range(450)]
        gap.remove()
        await eventually(lambda: len(airflow.fired) >= len(job_ids))
        await looks_pass(agenty_sandbox)
        assert sorted(airflow.fired) == job_ids


@pytest.mark.agenty_sandbox(page_cap=100)
@to_the_end
async def test_a_job_that_sank_far_down_the_list_is_asked_for_by_itself(agenty_sandbox, triggerer):
    agenty_sandbox.add_older_jobs(OTHER, 300)
    slow = start(agenty_sandbox)
    async with watching(triggerer, agenty_sandbox) as airflow:
        for _ in range(150):
            start(agenty_sandbox, OTHER, "completed")
        await looks_pass(agenty_sandbox)
        agenty_sandbox.clear()
        await looks_pass(agenty_sandbox)
        assert {request.path for request in agenty_sandbox.requests} == {"/jobs", f"/jobs/{slow}"}
        agenty_sandbox.set_status(slow, "completed")
        await eventually(lambda: airflow.fired)
        assert airflow.fired == [slow]


@pytest.mark.agenty_sandbox(page_cap=10)
@to_the_end
async def test_a_job_that_is_gone_is_forgotten(agenty_sandbox, comms):
    job_id = start(agenty_sandbox)
    async with Triggerer() as airflow:
        airflow.watch()
        await eventually(lambda: comms.state() == {"newest": job_id, "pending": [job_id]})
        for _ in range(20):
            newest = start(agenty_sandbox, OTHER, "completed")
        agenty_sandbox.fault("GET", f"/jobs/{job_id}", status=404, body={"message": "No such job"}, times=None)
        await eventually(lambda: comms.state() == {"newest": newest, "pending": []})


def test_the_event_lets_a_dag_export_the_job_and_holds_no_secret(agenty_sandbox, triggerer):
    async def main():
        async with watching(triggerer, agenty_sandbox) as airflow:
            job_id = start(agenty_sandbox)
            agenty_sandbox.set_status(job_id, "completed", pages_total=7, pages_credit=5)
            await eventually(lambda: airflow.events)
            return job_id, airflow.events[0]

    job_id, event = run(main())
    assert (
        event.items()
        >= {
            "job_id": job_id,
            "agent_id": AGENT,
            "status": "completed",
            "pages_total": 7,
            "pages_credit": 5,
            "is_scheduled": False,
            "agenty_conn_id": "agenty_default",
        }.items()
    )
    assert event["completed_at"].endswith("Z")
    assert agenty_sandbox.key not in json.dumps(event)


# What a restart finds


def test_a_restart_neither_loses_nor_repeats(agenty_sandbox, comms):
    async def before():
        async with watching(Triggerer, agenty_sandbox) as airflow:
            over, active = start(agenty_sandbox, status="completed"), start(agenty_sandbox)
            await eventually(lambda: airflow.fired == [over])
            await eventually(lambda: comms.state() == {"newest": active, "pending": [active]})
            return active

    async def after(expected):
        async with Triggerer() as airflow:
            airflow.watch()
            await eventually(lambda: len(airflow.fired) == len(expected))
            await looks_pass(agenty_sandbox)
            return airflow.fired

    active = run(before())
    meanwhile = start(agenty_sandbox, status="completed")
    agenty_sandbox.set_status(active, "completed")
    assert sorted(run(after([active, meanwhile]))) == [active, meanwhile]
    assert run(after([])) == []


def test_an_event_that_was_not_stored_fires_again_and_one_that_was_does_not(agenty_sandbox, comms):
    async def crash():
        async with Triggerer(stores_events=False) as airflow:
            airflow.watch()
            await eventually(lambda: comms.state() is not None)
            job_id = start(agenty_sandbox, status="completed")
            await eventually(lambda: airflow.fired == [job_id])
            await looks_pass(agenty_sandbox)
            return job_id

    async def restart():
        async with Triggerer() as airflow:
            airflow.watch()
            await looks_pass(agenty_sandbox, 4)
            return airflow.fired

    job_id = run(crash())
    assert comms.state()["newest"] < job_id
    assert run(restart()) == [job_id]
    assert run(restart()) == []


def test_an_event_that_airflow_gave_up_on_comes_again_and_those_of_other_watchers_do_not(agenty_sandbox, comms):
    async def main():
        async with Triggerer() as airflow:
            airflow.manager = SharedStreamManager(ack_timeout=1)
            unlucky = airflow.watch(stores_events=False)
            other = airflow.watch(OTHER, assets=["others"])
            await eventually(lambda: comms.state() and comms.state("others", OTHER))
            gap = agenty_sandbox.fault("GET", "/jobs", status=503, times=None)
            await asyncio.to_thread(gap.wait)
            job_ids = [start(agenty_sandbox, agent, "completed") for agent in (AGENT, OTHER)]
            gap.remove()
            await eventually(unlucky.done)
            with pytest.raises(AckTimeout):
                unlucky.result()
            airflow.tasks.remove(unlucky)
            await eventually(lambda: comms.state("others", OTHER) == {"newest": job_ids[1], "pending": []})
            assert not other.done()
            assert sorted(airflow.fired) == job_ids
            return job_ids

    async def again():
        async with Triggerer() as airflow:
            airflow.watch()
            airflow.watch(OTHER, assets=["others"])
            await looks_pass(agenty_sandbox, 4)
            return airflow.fired

    job_ids = run(main())
    assert run(again()) == job_ids[:1]


def test_a_watcher_that_is_removed_while_it_fires_loses_nothing(agenty_sandbox, comms):
    """The others go on: what the removed one has not passed on must not be stored as seen with theirs."""

    async def main():
        async with Triggerer() as airflow:
            # It is cancelled with its third event on the way, which Airflow never takes.
            removed = airflow.watch(removed_after=2)
            airflow.watch(OTHER, assets=["others"])
            await eventually(lambda: comms.state() and comms.state("others", OTHER))
            gap = agenty_sandbox.fault("GET", "/jobs", status=503, times=None)
            await asyncio.to_thread(gap.wait)
            job_ids = [start(agenty_sandbox, status="completed") for _ in range(5)]
            gap.remove()
            await eventually(removed.done)
            await eventually(lambda: comms.state("others", OTHER)["newest"] == job_ids[-1])
            assert airflow.fired == job_ids[:2]
            return job_ids

    async def again():
        async with Triggerer() as airflow:
            airflow.watch()
            await looks_pass(agenty_sandbox, 4)
            return airflow.fired

    job_ids = run(main())
    assert run(again()) == job_ids[2:]


@to_the_end
async def test_watchers_of_different_agents_on_one_asset_remember_separately(agenty_sandbox, comms):
    async with Triggerer() as airflow:
        airflow.watch(AGENT)
        airflow.watch(OTHER)
        await looks_pass(agenty_sandbox)
        own, other = start(agenty_sandbox, AGENT), start(agenty_sandbox, OTHER)
        await eventually(lambda: comms.state(agent_id=AGENT) == {"newest": other, "pending": [own]})
        await eventually(lambda: comms.state(agent_id=OTHER) == {"newest": other, "pending": [other]})


@to_the_end
async def test_a_watcher_of_several_assets_goes_on_from_the_latest_that_any_of_them_knows(agenty_sandbox, comms):
    job_id = start(agenty_sandbox, status="completed")
    key = f"agenty_jobs/agenty_default/{AGENT}"
    comms.values = {("books", key): {"newest": job_id, "pending": []}, ("old", key): {"newest": 1, "pending": [1]}}
    async with Triggerer() as airflow:
        airflow.watch(assets=["old", "books", "new"])
        await looks_pass(agenty_sandbox)
        assert airflow.fired == []
        await eventually(lambda: len({str(value) for value in comms.values.values()}) == 1 and len(comms.values) == 3)


@to_the_end
async def test_what_can_not_be_read_from_the_store_is_no_reason_to_begin_anew(agenty_sandbox, comms, monkeypatch):
    monkeypatch.setattr(watcher_state, "SECONDS_BETWEEN_LOADS", 0.05)
    before = start(agenty_sandbox)
    comms.values["books", f"agenty_jobs/agenty_default/{AGENT}"] = {"newest": before, "pending": [before]}
    missed = start(agenty_sandbox, status="completed")
    comms.failing = 3
    async with Triggerer() as airflow:
        airflow.watch()
        await eventually(lambda: airflow.fired)
        assert airflow.fired == [missed]


@to_the_end
async def test_what_can_not_be_stored_is_stored_later(agenty_sandbox, comms):
    async with Triggerer() as airflow:
        airflow.watch()
        await eventually(lambda: comms.state() is not None)
        comms.failing = 2
        job_id = start(agenty_sandbox, status="completed")
        await eventually(lambda: comms.state() == {"newest": job_id, "pending": []})
        assert (airflow.fired, comms.failing) == ([job_id], 0)


def test_a_store_that_does_not_answer_holds_up_nothing_for_long(agenty_sandbox, comms, monkeypatch):
    monkeypatch.setattr(watcher_state, "MAX_SAVE_SECONDS", 0.1)

    async def main():
        async with Triggerer() as airflow:
            airflow.watch()
            await eventually(lambda: comms.state() is not None)

            async def never(_):
                await asyncio.Event().wait()

            monkeypatch.setattr(comms, "asend", never)
            job_ids = []
            for number in range(2):
                job_ids.append(start(agenty_sandbox, status="completed"))
                await eventually(lambda number=number: len(airflow.fired) == number + 1)
            assert airflow.fired == job_ids

    run(main())


@pytest.mark.parametrize("value", ["odd", {"newest": "7"}, {"newest": 7, "pending": None}, {}])
def test_a_state_that_makes_no_sense_is_a_new_beginning(agenty_sandbox, comms, value, caplog):
    over = start(agenty_sandbox, status="completed")
    comms.values["books", f"agenty_jobs/agenty_default/{AGENT}"] = value

    async def main():
        async with Triggerer() as airflow:
            airflow.watch()
            await eventually(lambda: comms.state() == {"newest": over, "pending": []})
            assert airflow.fired == []

    run(main())
    assert "begins anew" in caplog.text


@to_the_end
async def test_nothing_is_written_while_nothing_changes(agenty_sandbox, comms):
    start(agenty_sandbox)
    async with Triggerer() as airflow:
        airflow.watch()
        await eventually(lambda: comms.state() is not None)
        await looks_pass(agenty_sandbox, 5)
        assert comms.writes == 1


# What goes wrong


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"body": "<html>Bad gateway</html>"}, {"body": {"message": "odd"}}, {"drop": "before"}],
    ids=["503", "HTML", "no page", "dropped"],
)
def test_bad_answers_are_tolerated_and_told_once(agenty_sandbox, triggerer, fault, caplog):
    caplog.set_level(logging.INFO)

    async def main():
        async with watching(triggerer, agenty_sandbox) as airflow:
            bad = agenty_sandbox.fault("GET", "/jobs", times=None, **fault)
            await asyncio.to_thread(bad.wait, 12)
            job_id = start(agenty_sandbox, status="completed")
            bad.remove()
            await eventually(lambda: airflow.fired)
            assert airflow.fired == [job_id]

    run(main())
    assert caplog.text.count("can't be listed") == 1
    assert caplog.text.count("can be listed again") == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_once_and_tried_slowly(agenty_sandbox, triggerer, status, caplog, monkeypatch):
    monkeypatch.setattr(job_feed, "SECONDS_AFTER_FINAL_ERROR", 1.0)

    async def main():
        async with watching(triggerer, agenty_sandbox) as airflow:
            refused = agenty_sandbox.fault("GET", "/jobs", status=status, body={"message": "No"}, times=None)
            # Two at once (the connection is read again), and the same a pause later.
            await asyncio.to_thread(refused.wait, 4)
            times = [request.time for request in agenty_sandbox.requests if request.status == status]
            job_id = start(agenty_sandbox, status="completed")
            refused.remove()
            await eventually(lambda: airflow.fired)
            assert airflow.fired == [job_id]
            return times

    times = run(main())
    assert times[2] - times[1] >= 0.9
    assert caplog.text.count("can't be listed") == 1
    assert agenty_sandbox.key not in caplog.text


def test_too_many_requests_slow_it_down(agenty_sandbox, triggerer):
    async def main():
        async with triggerer() as airflow:
            airflow.watch()
            limited = agenty_sandbox.fault("GET", "/jobs", status=429, headers={"Retry-After": "2"}, after=1)
            await asyncio.to_thread(limited.wait)
            job_id = start(agenty_sandbox, status="completed")
            await eventually(lambda: airflow.fired == [job_id])

    run(main())
    times = [request.time for request in looks(agenty_sandbox)]
    assert times[2] - times[1] >= 1.9


@to_the_end
async def test_a_connection_that_is_made_later_is_taken_up(agenty_sandbox, triggerer, monkeypatch):
    monkeypatch.setattr(job_feed, "SECONDS_AFTER_FINAL_ERROR", 0.05)
    connection = agenty_sandbox.connection_json
    monkeypatch.delenv("AIRFLOW_CONN_AGENTY_DEFAULT")
    async with triggerer() as airflow:
        airflow.watch()
        await asyncio.sleep(0.5)
        assert looks(agenty_sandbox) == []
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", connection)
        await looks_pass(agenty_sandbox)
        job_id = start(agenty_sandbox, status="completed")
        await eventually(lambda: airflow.fired == [job_id])


@to_the_end
async def test_one_odd_row_hides_no_other_job(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        job_id = start(agenty_sandbox, status="completed")
        rows = ["odd", {"job_id": None, "status": "running"}, agenty_sandbox.job(job_id)]
        page = {"total": 3, "limit": 20, "offset": 0, "returned": 3, "result": rows}
        agenty_sandbox.fault("GET", "/jobs", body=page, times=None)
        await eventually(lambda: airflow.fired == [job_id])


def test_an_account_whose_jobs_have_lower_numbers_is_told(agenty_sandbox, comms, caplog):
    job_id = start(agenty_sandbox, status="completed")
    comms.values["books", f"agenty_jobs/agenty_default/{AGENT}"] = {"newest": job_id + 1000, "pending": []}

    async def main():
        async with Triggerer() as airflow:
            airflow.watch()
            await looks_pass(agenty_sandbox, 5)
            assert airflow.fired == []

    run(main())
    assert caplog.text.count("was the newest of connection 'agenty_default'") == 1


@to_the_end
async def test_a_slow_answer_does_not_hold_up_the_event_loop(agenty_sandbox, triggerer):
    async with watching(triggerer, agenty_sandbox) as airflow:
        slow = agenty_sandbox.fault("GET", "/jobs", hold="before", times=None)
        # Were the loop blocked by the call, this would never be reached: the answer comes only afterwards.
        while not await asyncio.to_thread(lambda: slow.holding):
            await asyncio.sleep(0.01)
        job_id = start(agenty_sandbox, status="completed")
        slow.remove()
        await eventually(lambda: airflow.fired == [job_id])


def test_the_connection_is_read_where_airflow_can_answer_in_its_own_event_loop(agenty_sandbox, triggerer, mocker):
    """Elsewhere the triggerer of Airflow 3.0 and 3.1 dies of the answer."""
    read = AgentyHook.get_connection
    loops = []

    async def answer():
        loops.append(asyncio.get_running_loop())

    def ask_airflow(conn_id):
        async_to_sync(answer)()
        return read(conn_id)

    mocker.patch.object(AgentyHook, "get_connection", side_effect=ask_airflow)

    async def main():
        async with watching(triggerer, agenty_sandbox):
            refused = agenty_sandbox.fault("GET", "/jobs", status=401, body={"message": "Revoked"}, times=1)
            await asyncio.to_thread(refused.wait)
            await looks_pass(agenty_sandbox)
            assert loops == [asyncio.get_running_loop()] * 2

    run(main())


# What is shared


def test_watchers_of_one_connection_share_one_request_per_interval(agenty_sandbox, triggerer):
    agents = [AGENT, OTHER, None, "w9qmlp5475"]

    async def main():
        async with triggerer() as airflow:
            for number, agent_id in enumerate(agents * 3):
                # Equal arguments are one trigger to Airflow; other assets stand for other DAGs here.
                airflow.watch(agent_id, assets=[f"asset{number}"], interval=0.1)
            await looks_pass(agenty_sandbox)
            held = agenty_sandbox.fault("*", "/**", hold="before", times=None)
            await asyncio.to_thread(held.wait)
            # Twelve pollers would have twelve requests under way by now.
            await asyncio.sleep(1)
            assert held.hits == held.holding == 1
            held.remove()
            job_id = start(agenty_sandbox, OTHER, "completed")
            await eventually(lambda: len(airflow.fired) == 6)
            assert set(airflow.fired) == {job_id}

    run(main())
    assert agenty_sandbox.connections["api"] == 1


@to_the_end
async def test_a_watcher_that_joins_and_one_that_leaves_do_not_disturb_the_others(agenty_sandbox, triggerer):
    async with triggerer() as airflow:
        airflow.watch(AGENT)
        leaving = airflow.watch(OTHER)
        await looks_pass(agenty_sandbox)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        airflow.watch(None, assets=["all"])
        await looks_pass(agenty_sandbox)
        job_id = start(agenty_sandbox, AGENT, "completed")
        await eventually(lambda: len(airflow.fired) == 2)
        await looks_pass(agenty_sandbox)
        assert airflow.fired == [job_id] * 2


@to_the_end
async def test_a_watcher_far_behind_that_joins_while_the_others_are_answered_loses_nothing(agenty_sandbox, comms):
    old = agenty_sandbox.add_older_jobs(AGENT, 60)
    key = f"agenty_jobs/agenty_default/{AGENT}"
    comms.values["behind", key] = {"newest": min(old), "pending": []}
    comms.values["ahead", key] = {"newest": max(old), "pending": []}
    async with Triggerer() as behind, Triggerer() as ahead:
        ahead.watch(assets=["ahead"])
        await looks_pass(agenty_sandbox)
        # On its way are the newest jobs only, for the one that is ahead.
        held = agenty_sandbox.fault("GET", "/jobs", hold="before", times=1)
        await asyncio.to_thread(held.wait)
        behind.watch(assets=["behind"])
        await eventually(lambda: comms.reads == 2)
        await asyncio.sleep(0.1)
        held.release()
        await eventually(lambda: len(behind.fired) == 59)
        await looks_pass(agenty_sandbox)
        assert sorted(behind.fired) == sorted(set(old) - {min(old)})
        assert ahead.fired == []


def test_another_connection_or_interval_is_another_poll():
    keys = {
        AgentyJobEventTrigger("a").shared_stream_key(),
        AgentyJobEventTrigger("b").shared_stream_key(),
        AgentyJobEventTrigger(poll_interval=60).shared_stream_key(),
        AgentyJobEventTrigger(poll_interval=30).shared_stream_key(),
        AgentyJobEventTrigger(agenty_conn_id="other").shared_stream_key(),
    }
    assert len(keys) == 3


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_no_socket_is_left_open(agenty_sandbox, triggerer):
    import gc

    async def main():
        async with watching(triggerer, agenty_sandbox):
            pass

    run(main())
    gc.collect()


# What Airflow makes of it


def test_what_an_earlier_release_stored_is_understood():
    released = {"agent_id": AGENT, "agenty_conn_id": "agenty_default", "poll_interval": 60.0}

    path, arguments = AgentyJobEventTrigger(**released).serialize()

    assert path == "airflow_provider_agenty.triggers.agenty.AgentyJobEventTrigger"
    assert json.loads(json.dumps(arguments)).items() >= released.items()


@needs_asset_watchers
def test_equal_arguments_are_one_trigger_and_stay_the_same_one_in_the_database():
    """A trigger whose arguments change on their way through the database is made anew with each parse, for ever."""
    from airflow.triggers.base import BaseEventTrigger

    hashes = set()
    for trigger in (AgentyJobEventTrigger(f" {AGENT} ", poll_interval=60), AgentyJobEventTrigger(AGENT)):
        path, arguments = trigger.serialize()
        hashes |= {
            BaseEventTrigger.hash(path, arguments),
            BaseEventTrigger.hash(path, json.loads(json.dumps(arguments))),
        }
    assert len(hashes) == 1


@needs_asset_watchers
def test_it_can_be_given_to_a_watcher():
    from airflow.sdk import Asset, AssetWatcher
    from airflow.triggers.base import BaseEventTrigger

    watcher = AssetWatcher(name="jobs", trigger=AgentyJobEventTrigger())
    assert Asset("books", watchers=[watcher]).watchers == [watcher]
    assert isinstance(watcher.trigger, BaseEventTrigger)


@pytest.mark.parametrize(
    "arguments",
    [{"agent_id": ""}, {"agent_id": "{{ var.value.agent }}"}, {"poll_interval": 0}, {"poll_interval": float("nan")}],
)
def test_arguments_that_can_not_be_used_are_refused_where_the_dag_is_read(arguments):
    with pytest.raises(AgentyInputError, match=next(iter(arguments))):
        AgentyJobEventTrigger(**arguments)
