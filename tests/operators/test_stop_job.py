"""Stopping a job, and the link that each task has."""

from __future__ import annotations

import pytest

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyInputError, AgentyNotFoundError
from airflow_provider_agenty.links.agenty import AgentyAgentLink, agent_url
from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator, AgentyStopJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

AGENT = "45l0wewqzk"


@pytest.mark.agenty_sandbox(manual=True)
@pytest.mark.parametrize("as_text", [True, False])
def test_a_running_job_is_asked_to_stop_once(agenty_sandbox, make_context, as_text):
    job_id = agenty_sandbox.start_job(AGENT)
    task = AgentyStopJobOperator(task_id="stop", job_id=str(job_id) if as_text else job_id)
    context = make_context(task)

    assert task.execute(context) in {"stopping", "stopped"}
    assert agenty_sandbox.stopped_jobs == [job_id]
    assert context["ti"].pushed["_link_AgentyAgentLink"].endswith(AGENT)


def test_a_job_that_is_over_stays_as_it_is(agenty_sandbox, make_context):
    job_id = agenty_sandbox.start_job(AGENT)
    agenty_sandbox.set_status(job_id, "completed")
    task = AgentyStopJobOperator(task_id="stop", job_id=job_id)

    assert task.execute(make_context(task)) == "completed"


def test_an_unknown_job_fails_without_retries(agenty_sandbox, make_context):
    task = AgentyStopJobOperator(task_id="stop", job_id=999)

    with pytest.raises(AgentyNotFoundError, match="999"):
        task.execute(make_context(task))


@pytest.mark.parametrize("job_id", [None, "", "None", "7/result", 0, True, 1.5])
def test_a_job_id_that_can_be_none_is_refused_when_the_dag_file_is_read(job_id):
    with pytest.raises(AgentyInputError, match="job_id"):
        AgentyStopJobOperator(task_id="stop", job_id=job_id)


TASKS = [
    (AgentyStartJobOperator, {"agent_id": AGENT}, {"agent_id", "agent_name", "urls", "agenty_conn_id"}),
    (AgentyStopJobOperator, {"job_id": 7}, {"job_id", "agenty_conn_id"}),
    (AgentyJobSensor, {"job_id": 7}, {"job_id", "agenty_conn_id"}),
    (
        AgentyExportOperator,
        {"job_id": 7, "path": "books.csv"},
        {"job_id", "path", "agenty_conn_id", "storage_conn_id", "collection", "filename"},
    ),
]


@pytest.mark.parametrize(("task", "arguments", "templated"), TASKS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_templated_and_that_no_file_is_taken_for_a_template(task, arguments, templated):
    made = task(task_id="task", **arguments)

    assert set(made.template_fields) == templated
    assert tuple(made.template_ext) == ()
    assert [link.name for link in made.operator_extra_links] == ["Agenty agent"]


@pytest.mark.parametrize(
    ("job", "url"),
    [
        (Job(7, "running", agent_id=AGENT, type="crawling"), f"https://cloud.agenty.com/agents/crawling/{AGENT}"),
        (Job(7, "running", agent_id=AGENT), f"https://cloud.agenty.com/agents/scraping/{AGENT}"),
        (Job(7, "running", agent_id="a b", type="x/y"), "https://cloud.agenty.com/agents/x%2Fy/a%20b"),
    ],
)
def test_the_link_leads_to_the_agents_page(job, url):
    assert agent_url(job) == url


def test_without_an_agent_there_is_no_link():
    assert AgentyAgentLink.xcoms(Job(7, "running")) == {}
