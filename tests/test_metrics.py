"""What is counted where; tests/versions/test_metrics.py sends it to a StatsD server."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_agenty import airflow_compat, metrics
from airflow_provider_agenty.exceptions import AgentyJobFailedError
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger
from tests.docs.pages import rows, section

AGENT = "45l0wewqzk"
PAGE = Path(__file__).parent.parent / "docs" / "operate.md"


class Stats:
    """Airflow's, as far as it is used."""

    def __init__(self):
        self.counted = []

    def incr(self, name, count, *, tags):
        if ".poller." not in name:
            self.counted.append((name.removeprefix("agenty."), count, tags))

    def timing(self, name, dt, *, tags):
        self.counted.append((name.removeprefix("agenty."), dt, tags))

    def gauge(self, name, value, *, tags):
        pass

    @property
    def names(self):
        return [name for name, _, _ in self.counted]


@pytest.fixture
def stats(monkeypatch):
    stats = Stats()
    monkeypatch.setattr(airflow_compat, "stats", lambda: stats)
    return stats


def start(**parameters):
    return AgentyStartJobOperator(task_id="start", agent_id=AGENT, poll_interval=0.05, **parameters)


async def first_event(trigger):
    async for event in trigger.run():
        return event
    raise AssertionError("the trigger sent no event")


@pytest.mark.agenty_sandbox(manual=True)
def test_a_retry_counts_the_job_as_reattached(agenty_sandbox, make_context, state_store, stats):
    start().execute(make_context(start(), store=state_store))
    start().execute(make_context(start(), store=state_store, try_number=2))

    assert stats.names == ["jobs.started", "jobs.reattached"]


def test_a_job_that_ended_is_counted_with_its_times_and_credits(agenty_sandbox, make_context, stats):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "aborted", error="No credit")
    sensor = AgentyJobSensor(task_id="wait", job_id=job_id, deferrable=False)
    with pytest.raises(AgentyJobFailedError):
        sensor.execute(make_context(sensor))

    assert stats.names[0] == "jobs.ended.aborted"
    assert "jobs.credits" in stats.names
    assert all(tags == {"agent_id": AGENT, "conn_id": "agenty_default"} for _, _, tags in stats.counted)


@pytest.mark.parametrize("task_instance", [SimpleNamespace(task_id="wait"), None])
def test_a_wait_that_ends_in_the_triggerer_is_counted_there(agenty_sandbox, stats, task_instance):
    """Without a task instance, in dag.test, the sensor polls the job again and counts it."""
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    trigger = AgentyJobTrigger(job_id, poll_interval=0.05, end_from_trigger=True)
    trigger.task_instance = task_instance
    asyncio.run(first_event(trigger))

    assert stats.names.count("jobs.ended.completed") == (0 if task_instance is None else 1)


def test_a_wait_that_the_task_ends_is_not_counted_by_the_trigger(agenty_sandbox, stats):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    asyncio.run(first_event(AgentyJobTrigger(job_id, poll_interval=0.05)))

    assert stats.names == []


def test_the_number_of_waiters_that_is_told_last_is_true(agenty_sandbox, stats):
    """A poll is counted in a thread; here the wait ends before the thread has told."""
    told, ended = [], threading.Event()

    def gauge(name, value, *, tags):
        if value:
            ended.wait(30)
        told.append(value)
        ended.set()

    stats.gauge = gauge
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    asyncio.run(first_event(AgentyJobTrigger(job_id, poll_interval=0.05)))
    give_up_at = time.monotonic() + 30
    while told != [0, 1, 0]:
        assert time.monotonic() < give_up_at, told
        time.sleep(0.01)


def test_a_backend_that_is_broken_costs_a_debug_line(agenty_sandbox, make_context, monkeypatch, caplog):
    def broken():
        raise ConnectionError("no route to the metrics")

    monkeypatch.setattr(airflow_compat, "stats", broken)
    caplog.set_level(logging.DEBUG, logger="airflow_provider_agenty.metrics")
    start(wait_for_completion=True, deferrable=False).execute(make_context(start()))

    lines = [record for record in caplog.records if record.name == "airflow_provider_agenty.metrics"]
    assert {line.levelname for line in lines} == {"DEBUG"}
    assert "The metric agenty.jobs.started was not sent: no route to the metrics" in [
        line.getMessage() for line in lines
    ]


def test_metrics_that_are_off_are_sent_to_nobody():
    airflow_compat.stats.cache_clear()

    assert airflow_compat.stats() is None


def test_the_page_names_each_metric():
    names = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}
    ended = {f"{metrics.JOBS_ENDED}.{status}" for status in ("completed", "stopped", "aborted", "failed")}
    table = [name for row in rows(section(PAGE, "Metrics")) for name in re.findall(r"`(agenty\.[a-z_.]+)`", row[0])]

    assert sorted(table) == sorted(names - {metrics.JOBS_ENDED} | ended)
