"""Starting a job of an agent that is given by its name."""

from __future__ import annotations

import pytest

from airflow_provider_agenty.exceptions import AgentyInputError, AgentyNotFoundError, AgentyUnavailableError
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.waiting.task_state import JOB_KEY
from tests.features import IS_AIRFLOW_3

if IS_AIRFLOW_3:
    from airflow.sdk import DAG
else:
    from airflow import DAG

BOOKS, RETAILERS = "45l0wewqzk", "w9qmlp5475"


def start(**parameters):
    return AgentyStartJobOperator(task_id="start", **parameters)


def paths(sandbox):
    return [request.path for request in sandbox.requests]


def test_the_name_is_looked_up_once_before_anything_else(agenty_sandbox, make_context, state_store):
    job_id = start(agent_name=" Books ").execute(make_context(start(agent_name="Books"), store=state_store))

    assert agenty_sandbox.job(job_id)["agent_id"] == BOOKS
    assert paths(agenty_sandbox) == ["/agents", "/jobs", "/jobs/start"]
    assert state_store.values[JOB_KEY]["agent_id"] == BOOKS


def test_a_retry_goes_on_with_the_job_of_that_agent(agenty_sandbox, make_context, state_store):
    task = start(agent_name="Books", retries=1)
    job_id = task.execute(make_context(task, store=state_store, max_tries=1))
    again = start(agent_name="Books", retries=1)

    assert again.execute(make_context(again, store=state_store, max_tries=1, try_number=2)) == job_id
    assert agenty_sandbox.starts == 1
    assert paths(agenty_sandbox).count("/agents") == 1


@pytest.mark.parametrize("other_name", ["Books", "Old books"])
def test_a_retry_needs_no_name_that_was_changed_or_given_twice(agenty_sandbox, make_context, state_store, other_name):
    task = start(agent_name="Books", retries=1)
    job_id = task.execute(make_context(task, store=state_store, max_tries=1))
    agenty_sandbox.set_agent(BOOKS, name=other_name)
    agenty_sandbox.set_agent(RETAILERS, name="Books")
    again = start(agent_name="Books", retries=1)

    assert again.execute(make_context(again, store=state_store, max_tries=1, try_number=2)) == job_id
    assert agenty_sandbox.starts == 1


def test_a_clear_looks_the_name_up_again(agenty_sandbox, make_context, state_store):
    task = start(agent_name="Books", retries=1)
    task.execute(make_context(task, store=state_store, max_tries=1))
    agenty_sandbox.set_agent(BOOKS, name="Old books")
    agenty_sandbox.set_agent(RETAILERS, name="Books")
    cleared = start(agent_name="Books", retries=1)
    new = cleared.execute(make_context(cleared, store=state_store, max_tries=2, try_number=2))

    assert agenty_sandbox.job(new)["agent_id"] == RETAILERS


@pytest.mark.parametrize(
    ("other_name", "said"), [("Books", f"2 agents are called 'Books': {BOOKS} "), (None, "There is no agent called")]
)
def test_several_or_none_is_an_error_and_nothing_is_started(agenty_sandbox, make_context, other_name, said):
    agenty_sandbox.set_agent(RETAILERS, name=other_name or "Retailers")
    task = start(agent_name="Books" if other_name else "books")

    with pytest.raises(AgentyInputError, match=said) as caught:
        task.execute(make_context(task))

    assert BOOKS in str(caught.value)
    assert RETAILERS in str(caught.value)
    assert paths(agenty_sandbox) == ["/agents"]


@pytest.mark.parametrize(
    ("fault", "kind"), [({"status": 503}, AgentyUnavailableError), ({"status": 404}, AgentyNotFoundError)]
)
def test_a_list_that_can_not_be_read_starts_nothing(agenty_sandbox, make_context, fault, kind):
    agenty_sandbox.fault("GET", "/agents", times=None, **fault)
    task = start(agent_name="Books")
    with pytest.raises(kind):
        task.execute(make_context(task))
    assert agenty_sandbox.starts == 0


def test_the_name_may_be_a_template(agenty_sandbox, make_context):
    with DAG("dag", schedule=None):
        task = start(agent_name="{{ which }}")
    task.render_template_fields({**make_context(task), "which": "Quotes"})
    job_id = task.execute(make_context(task))
    assert agenty_sandbox.job(job_id)["agent_id"] == "lmqdjwd972"


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("given", ["agent_id", "agent_name"])
def test_a_template_that_came_to_nothing_is_an_error(agenty_sandbox, make_context, native, given):
    with DAG("dag", schedule=None, render_template_as_native_obj=native):
        task = start(**{given: "{{ nothing }}"})
    task.render_template_fields({**make_context(task), "nothing": None})
    with pytest.raises(AgentyInputError, match=f"^{given} "):
        task.execute(make_context(task))
    assert agenty_sandbox.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "agent_id and agent_name are both missing: give one of them."),
        ({"agent_id": None, "agent_name": None}, "agent_id and agent_name are both missing: give one of them."),
        (
            {"agent_id": BOOKS, "agent_name": "Books"},
            "agent_id and agent_name can't be combined: leave out one of them.",
        ),
        ({"agent_id": "{{ a }}", "agent_name": "{{ b }}"}, "can't be combined"),
        ({"agent_name": " "}, "agent_name is empty"),
        ({"agent_name": ["Books"]}, "agent_name, a list, is not text"),
    ],
)
def test_what_is_not_one_of_the_two_is_refused_where_the_dag_is_read(given, said):
    with pytest.raises(AgentyInputError) as caught:
        start(**given)
    assert said in str(caught.value)


def test_names_can_be_mapped():
    with DAG("dag", schedule=None):
        AgentyStartJobOperator.partial(task_id="start").expand(agent_name=["Books", "Quotes"])
