"""How far a job is, in the task state store, where Airflow's UI shows it."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.waiting import task_state

AGENT = "45l0wewqzk"


def shown_in(store):
    return [value for key, value in store.written if key == "agenty_progress"]


def wait_in_operator(sandbox, context_of):
    task = AgentyStartJobOperator(task_id="wait", agent_id=AGENT, wait_for_completion=True, poll_interval=0.05)
    return task.execute(context_of(task))


def wait_in_sensor(sandbox, context_of):
    task = AgentyJobSensor(task_id="wait", job_id=sandbox.start_job(AGENT), poke_interval=0.05)
    return task.execute(context_of(task))


waits = pytest.mark.parametrize("wait", [wait_in_operator, wait_in_sensor])


@waits
def test_the_first_poll_and_the_end_are_shown(agenty_sandbox, make_context, state_store, wait):
    agenty_sandbox.script(["running"] * 6 + ["completed"])
    job_id = wait(agenty_sandbox, lambda task: make_context(task, store=state_store))

    first, last = shown_in(state_store)
    assert first.startswith(f"Job {job_id} is running")
    assert last.startswith(f"Job {job_id} is completed")
    assert "credit" in last


def test_it_is_shown_again_after_a_while(agenty_sandbox, make_context, state_store, monkeypatch):
    monkeypatch.setattr(task_state, "SECONDS_BETWEEN_PROGRESS", 0)
    agenty_sandbox.plan(seconds=0.5)
    wait_in_operator(agenty_sandbox, lambda task: make_context(task, store=state_store))

    assert len(shown_in(state_store)) > 3


@waits
def test_a_store_that_fails_costs_a_debug_line(agenty_sandbox, make_context, state_store, monkeypatch, caplog, wait):
    whole = state_store.set

    def set_all_but_progress(key, value, **more):
        if key == "agenty_progress":
            raise OSError("the API server is away")
        whole(key, value, **more)

    monkeypatch.setattr(state_store, "set", set_all_but_progress)
    caplog.set_level(logging.DEBUG, logger=task_state.__name__)
    wait(agenty_sandbox, lambda task: make_context(task, store=state_store))

    levels = {record.levelname for record in caplog.records if "the API server is away" in record.getMessage()}
    assert levels == {"DEBUG"}
