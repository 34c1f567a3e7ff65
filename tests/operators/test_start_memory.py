"""A start that is remembered in an Airflow Variable, as before Airflow 3.3 where its configuration says so."""

from __future__ import annotations

import json
import logging

import pytest

from airflow_provider_agenty import airflow_compat
from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from tests.features import IS_AIRFLOW_3

AGENT = "45l0wewqzk"


class Killed(BaseException):
    """Ends a process in the middle of something."""


class Variables:
    """Airflow's Variables, where there is no Airflow to ask."""

    def __init__(self):
        self.values = {}
        self.written = []
        self.descriptions = []

    def write(self, key, value, description):
        self.values[key] = value
        self.written.append(json.loads(value))
        self.descriptions.append(description)


@pytest.fixture
def variables(monkeypatch):
    variables = Variables()
    monkeypatch.setenv("AIRFLOW__AGENTY__START_MEMORY", "variables")
    monkeypatch.setattr(airflow_compat, "HAS_TASK_STATE_STORE", False)
    monkeypatch.setattr(airflow_compat, "read_variable", variables.values.get)
    monkeypatch.setattr(airflow_compat, "write_variable", variables.write)
    monkeypatch.setattr(airflow_compat, "delete_variable", lambda key: variables.values.pop(key, None))
    return variables


@pytest.fixture
def try_it(make_context):
    def run(*, context=None, max_tries=1, try_number=1, **parameters):
        task = AgentyStartJobOperator(**{"task_id": "start", "agent_id": AGENT, "retries": 1} | parameters)
        return task.execute(make_context(task, max_tries=max_tries, try_number=try_number, **(context or {})))

    return run


@pytest.fixture
def lost_after(agenty_sandbox, monkeypatch, try_it):
    """End the first try after so many writes of its Variable: 1 is the intent, 2 the job."""

    def lose(writes, **parameters):
        write = airflow_compat.write_variable
        count = [0]

        def counted(*arguments):
            write(*arguments)
            count[0] += 1
            if count[0] == writes:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(airflow_compat, "write_variable", counted)
            with pytest.raises(Killed):
                try_it(**parameters)

    return lose


def test_the_intent_is_kept_before_the_start_and_the_job_after_it(agenty_sandbox, variables, try_it):
    job_id = try_it()

    first, second = variables.written
    assert first.keys() == {"agenty_start"}
    assert second["agenty_job"]["job_id"] == job_id
    assert second["agenty_start"] == first["agenty_start"]
    assert agenty_sandbox.key not in json.dumps(variables.written)


def test_the_variable_says_whose_it_is(agenty_sandbox, variables, try_it):
    try_it(context={"dag_id": "books", "run_id": "manual__1", "task_id": "start", "map_index": 4})

    (key,) = variables.values
    assert key.startswith("agenty_start_")
    assert "books" not in key
    assert (
        variables.descriptions[0]
        == "Which job of Agenty was started: DAG books, run manual__1, task start, map index 4"
    )


@pytest.mark.parametrize("other", [{"dag_id": "b"}, {"run_id": "b"}, {"task_id": "b"}, {"map_index": 1}])
def test_each_task_instance_has_a_variable_of_its_own(agenty_sandbox, variables, try_it, other):
    try_it()
    try_it(context=other, try_number=2)

    assert len(variables.values) == 2
    assert agenty_sandbox.starts == 2


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("status", ["running", "completed"])
def test_a_retry_goes_on_with_the_job(agenty_sandbox, variables, try_it, lost_after, status):
    lost_after(2)
    (job_id,) = agenty_sandbox.started_jobs
    agenty_sandbox.set_status(job_id, status)
    # Without the Variable these two could be the one that was started, too.
    for _ in range(2):
        agenty_sandbox.start_job(AGENT)

    assert try_it(try_number=2) == job_id
    assert agenty_sandbox.starts == 1


@pytest.mark.agenty_sandbox(manual=True)
def test_a_retry_that_finds_only_the_intent_starts_what_was_not_started(agenty_sandbox, variables, try_it, lost_after):
    lost_after(1)
    assert agenty_sandbox.starts == 0

    assert [try_it(try_number=2)] == agenty_sandbox.started_jobs


@pytest.mark.agenty_sandbox(manual=True)
def test_a_retry_that_finds_only_the_intent_takes_the_job_made_since(agenty_sandbox, variables, try_it, lost_after):
    agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), "completed")
    lost_after(1)
    made = agenty_sandbox.start_job(AGENT)

    assert try_it(try_number=2) == made
    assert agenty_sandbox.starts == 0


@pytest.mark.agenty_sandbox(manual=True)
def test_a_retry_that_finds_nothing_starts_whatever_else_runs(agenty_sandbox, variables, try_it):
    agenty_sandbox.start_job(AGENT)

    assert [try_it(try_number=2)] == agenty_sandbox.started_jobs


@pytest.mark.agenty_sandbox(manual=True)
def test_a_clear_starts_anew(agenty_sandbox, variables, try_it):
    first = try_it()
    second = try_it(max_tries=3, try_number=3)

    assert [first, second] == agenty_sandbox.started_jobs


def test_without_durable_nothing_is_kept(agenty_sandbox, variables, try_it):
    try_it(durable=False)

    assert variables.written == []


@pytest.mark.parametrize("end", ["on_success_callback", "on_skipped_callback", "on_failure_callback"])
@pytest.mark.parametrize("callbacks", [None, "one", "several"])
def test_the_variable_goes_when_the_task_has_ended_and_not_before(
    agenty_sandbox, variables, make_context, end, callbacks
):
    called = []
    own = {None: None, "one": called.append, "several": [called.append, called.append]}[callbacks]
    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT, retries=1, **{end: own})
    context = make_context(task, max_tries=1)

    task.execute(context)
    assert variables.values

    for callback in getattr(task, end):
        callback(context)
    assert variables.values == {}
    assert len(called) == {None: 0, "one": 1, "several": 2}[callbacks]


@pytest.mark.skipif(IS_AIRFLOW_3, reason="Airflow 3 stores a task's state before it runs the callbacks")
@pytest.mark.parametrize("end", ["on_success_callback", "on_skipped_callback", "on_failure_callback"])
def test_the_variable_stays_until_airflow_2_has_stored_the_state(agenty_sandbox, variables, make_context, end):
    from airflow.listeners.listener import get_listener_manager

    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT, retries=1)
    context = make_context(task, max_tries=1)
    context["ti"].raw = True  # as in the process that executes a task
    task.execute(context)

    for callback in getattr(task, end):
        callback(context)
    assert variables.values

    get_listener_manager().hook.before_stopping(component=None)
    get_listener_manager().clear()
    assert variables.values == {}


def test_a_retry_to_come_keeps_the_variable(agenty_sandbox, variables, make_context):
    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT, retries=1)
    task.execute(make_context(task, max_tries=1))

    assert not task.on_retry_callback


@pytest.mark.parametrize("what", ["read_variable", "write_variable"])
def test_variables_that_cannot_be_used_cost_a_warning(agenty_sandbox, variables, try_it, monkeypatch, caplog, what):
    def away(*_):
        raise RuntimeError("the secrets backend is away: password=hunter2")

    monkeypatch.setattr(airflow_compat, what, away)

    with caplog.at_level(logging.WARNING):
        assert [try_it()] == agenty_sandbox.started_jobs
    assert "can't be used (RuntimeError)" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("what", ["read_variable", "write_variable"])
@pytest.mark.parametrize("gone", [EOFError, BrokenPipeError])
def test_a_process_that_outlives_its_supervisor_starts_nothing(
    agenty_sandbox, variables, try_it, monkeypatch, what, gone
):
    def away(*_):
        raise gone

    monkeypatch.setattr(airflow_compat, what, away)

    with pytest.raises(gone):
        try_it()
    assert agenty_sandbox.starts == 0


@pytest.mark.agenty_sandbox(manual=True)
def test_variables_that_cannot_be_read_leave_the_list_of_jobs_to_a_retry(
    agenty_sandbox, variables, try_it, monkeypatch
):
    job_id = try_it()
    agenty_sandbox.set_status(job_id, "completed")
    monkeypatch.setattr(airflow_compat, "read_variable", lambda _: 1 / 0)

    assert try_it(try_number=2) == job_id
    assert agenty_sandbox.starts == 1


@pytest.mark.parametrize(
    "stored", ["", "null", "[]", "{", '{"agenty_job": 7, "agenty_start": []}', '{"agenty_job": {}}']
)
def test_what_somebody_else_wrote_there_is_not_followed(agenty_sandbox, variables, try_it, stored):
    try_it()
    (key,) = variables.values
    variables.values[key] = stored

    try_it(max_tries=3, try_number=3)
    assert agenty_sandbox.starts == 2


def test_by_default_nothing_is_kept(agenty_sandbox, variables, try_it, monkeypatch):
    monkeypatch.delenv("AIRFLOW__AGENTY__START_MEMORY")
    try_it()

    assert variables.written == []


def test_a_memory_that_does_not_exist_is_refused(agenty_sandbox, variables, try_it, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AGENTY__START_MEMORY", "redis")

    with pytest.raises(AgentyInputError, match=r"\[agenty\] start_memory .* 'redis'"):
        try_it()
    assert agenty_sandbox.requests == []


def test_the_task_state_store_comes_first(agenty_sandbox, variables, make_context, state_store):
    task = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    task.execute(make_context(task, store=state_store))

    assert state_store.values
    assert variables.written == []
