"""What a person was promised will end does so, although the server sends a byte now and then."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import pytest

from airflow_provider_agenty.airflow_compat import AirflowTaskTimeout
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger
from tests.api.conftest import Listener, listener  # noqa: F401 - a fixture

AGENT = "45l0wewqzk"

# An answer takes a quarter of an hour.
ENDLESS = 60.0


@pytest.fixture
def dripping(listener: Listener, monkeypatch):  # noqa: F811
    listener.drip = 0.2
    connection = {"conn_type": "agenty", "host": listener.url, "password": "a-key-of-agenty"}
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))
    return listener


@pytest.fixture
def stop_seconds(monkeypatch):
    """Let a stop take less than its 20 s, which would be long for a test."""
    monkeypatch.setattr("airflow_provider_agenty.waiting.job_watch.STOP_SECONDS", 1.0)


def stops(server):
    return sum("/stop" in path for _, path, _ in server.requests)


class Impatient:
    """Raises what Airflow raises at an execution_timeout, in the way in which it does."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        def raise_timeout(*_):
            raise AirflowTaskTimeout("execution_timeout")

        self.before = signal.signal(signal.SIGALRM, raise_timeout)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *exception):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


def test_execution_timeout_ends_a_task_that_waits_and_stops_its_job_in_time(dripping, make_context, stop_seconds):
    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT, wait_for_completion=True, deferrable=False)
    began = time.monotonic()

    with pytest.raises(AirflowTaskTimeout), Impatient(1.0):
        task.poll_until_complete({"job_id": 7}, make_context(task))
    assert time.monotonic() - began < ENDLESS / 4
    assert stops(dripping) == 1


def test_a_stop_ends_in_time(dripping, stop_seconds):
    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    began = time.monotonic()

    task.stop_job(7)
    asyncio.run(AgentyJobTrigger(7, cancel_on_kill=True).on_kill())
    assert time.monotonic() - began < ENDLESS / 4
    assert stops(dripping) == 2


def test_a_poke_ends_with_the_time_of_the_sensor(dripping, make_context):
    sensor = AgentyJobSensor(task_id="wait", job_id=7, timeout=1, deferrable=False)
    began = time.monotonic()

    assert not sensor.poke(make_context(sensor))
    assert time.monotonic() - began < ENDLESS / 4


@pytest.mark.parametrize("stream_logs", [False, True])
def test_a_deferred_wait_ends_at_its_deadline(dripping, monkeypatch, stream_logs):
    monkeypatch.setattr("airflow_provider_agenty.waiting.shared_poller.FIRST_ANSWER_SECONDS", 1.0)
    trigger = AgentyJobTrigger(7, poll_interval=0.1, deadline=time.time() + 1, stream_logs=stream_logs)
    began = time.monotonic()

    async def event():
        return (await anext(trigger.run())).payload

    loop = asyncio.new_event_loop()
    try:
        # Not asyncio.run: at its end that waits for threads, which a triggerer that goes on does not.
        assert loop.run_until_complete(event())["status"] == "timeout"
    finally:
        dripping.drip = 0.0
        loop.close()
    assert time.monotonic() - began < ENDLESS / 4
