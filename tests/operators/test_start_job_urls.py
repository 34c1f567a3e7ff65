"""Starting a job with URLs: the agent's input is set where a job is about to be started, and nowhere else."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from airflow import DAG
from airflow.exceptions import TaskDeferred

from airflow_provider_agenty.airflow_compat import AirflowFailException
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyInputError,
    AgentyNotFoundError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.waiting.task_state import INTENT_KEY, JOB_KEY

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG


AGENT = "45l0wewqzk"
A, B = "https://example.com/a", "https://example.com/b?page=2"
BEFORE = ["https://example.com/before"]
BAD_URLS = [[], "", "example.com", [A, None], ["https://example.com/a b"], {"a": A}, 7]


def start(**parameters):
    return AgentyStartJobOperator(
        **{"task_id": "start", "agent_id": AGENT, "urls": [A, B], "poll_interval": 0.05} | parameters
    )


def changes(sandbox):
    return [f"{request.method} {request.path}" for request in sandbox.requests if request.method != "GET"]


SET_AND_STARTED = [f"PUT /inputs/{AGENT}", "POST /jobs/start"]


class TestStart:
    def test_the_job_has_the_urls(self, agenty_sandbox, make_context):
        task = start(wait_for_completion=True, deferrable=False)

        job_id = task.execute(make_context(task))

        assert [row["url"] for row in AgentyHook().iter_result(job_id)] == [A, B]
        assert changes(agenty_sandbox) == SET_AND_STARTED

    def test_without_urls_the_input_is_left_as_it_is(self, agenty_sandbox, make_context):
        AgentyHook().set_input(AGENT, BEFORE)
        task = start(urls=None)

        task.execute(make_context(task))

        assert AgentyHook().get_input(AGENT).data == tuple(BEFORE)

    @pytest.mark.agenty_sandbox(manual=True)
    def test_link_return_value_and_deferral_are_the_same_as_without(self, agenty_sandbox, make_context):
        at_once = start()
        context = make_context(at_once)
        assert [at_once.execute(context)] == agenty_sandbox.started_jobs
        assert context["ti"].pushed["_link_AgentyAgentLink"].endswith(AGENT)

        waiting = start(wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            waiting.execute(make_context(waiting))
        assert deferred.value.trigger.job_id == agenty_sandbox.started_jobs[1]
        assert A not in str(deferred.value.trigger.serialize())

    def test_the_intent_is_stored_once_the_input_is_set_and_before_the_start(
        self, agenty_sandbox, make_context, state_store, monkeypatch
    ):
        order = []
        keep = state_store.set
        monkeypatch.setattr(
            state_store, "set", lambda key, value: (order.append((key, changes(agenty_sandbox))), keep(key, value))
        )
        task = start()

        task.execute(make_context(task, store=state_store))

        assert order == [(INTENT_KEY, SET_AND_STARTED[:1]), (JOB_KEY, SET_AND_STARTED)]

    @pytest.mark.parametrize("durable", [True, False])
    def test_where_the_input_cannot_be_set_nothing_is_started_and_nothing_remembered(
        self, agenty_sandbox, make_context, state_store, durable
    ):
        fault = agenty_sandbox.fault("PUT", "/inputs/*", status=503, times=None)
        task = start(durable=durable)
        with pytest.raises(AgentyUnavailableError, match=f"PUT /inputs/{AGENT}"):
            task.execute(make_context(task, store=state_store, max_tries=1))
        assert agenty_sandbox.starts == 0
        assert state_store.values == {}

        # Somebody else's job in between is not taken for ours.
        foreign = agenty_sandbox.start_job(AGENT)
        fault.remove()
        retry = start(durable=durable)
        job_id = retry.execute(make_context(retry, store=state_store, try_number=2, max_tries=1))

        assert job_id != foreign
        assert agenty_sandbox.started_jobs == [job_id]

    def test_an_unknown_agent_fails_without_retries(self, agenty_sandbox, make_context):
        task = start(agent_id="nosuchagent")

        with pytest.raises(AgentyNotFoundError, match="/inputs/nosuchagent") as error:
            task.execute(make_context(task))
        assert isinstance(error.value, AirflowFailException)
        assert agenty_sandbox.starts == 0

    @pytest.mark.parametrize("urls", BAD_URLS)
    def test_urls_that_cannot_be_are_refused_when_the_dag_file_is_read(self, urls):
        with pytest.raises(AgentyInputError, match="urls"):
            start(urls=urls)

    def test_an_instance_of_a_mapped_task_that_gets_no_urls_is_refused(self, agenty_sandbox, make_context):
        with DAG("mapped", schedule=None):
            mapped = AgentyStartJobOperator.partial(task_id="start", agent_id=AGENT).expand(urls=[[A], None])
        first, second = mapped.unmap({"urls": [A]}), mapped.unmap({"urls": None})
        first.execute(make_context(first))
        agenty_sandbox.clear()

        with pytest.raises(AgentyInputError, match="urls of task start is None"):
            second.execute(make_context(second))
        assert changes(agenty_sandbox) == []

    def test_an_instance_of_a_mapped_task_may_leave_urls_out(self, agenty_sandbox, make_context):
        with DAG("mapped", schedule=None):
            mapped = AgentyStartJobOperator.partial(task_id="start").expand(agent_id=[AGENT])
        task = mapped.unmap({"agent_id": AGENT})

        assert [task.execute(make_context(task))] == agenty_sandbox.started_jobs

    @pytest.mark.parametrize("urls", BAD_URLS)
    @pytest.mark.parametrize("durable", [True, False])
    def test_a_template_that_gives_no_urls_is_refused_before_anything_is_sent(
        self, agenty_sandbox, make_context, state_store, urls, durable
    ):
        task = start(urls="{{ found }}", durable=durable)
        task.urls = urls

        with pytest.raises(AgentyInputError, match="urls"):
            task.execute(make_context(task, store=state_store))
        assert agenty_sandbox.requests == []
        assert state_store.values == {}


class TestRetry:
    def retry(self, make_context, store, *, max_tries=1, rendered_urls=None):
        task = start(retries=1)
        task.urls = task.urls if rendered_urls is None else rendered_urls
        return task.execute(make_context(task, store=store, try_number=2, max_tries=max_tries))

    def first_try(self, sandbox, make_context, store):
        task = start(retries=1)
        job_id = task.execute(make_context(task, store=store, max_tries=1))
        # As another run does meanwhile.
        AgentyHook().set_input(AGENT, BEFORE)
        sandbox.clear()
        return job_id

    def only_intent(self, sandbox, store):
        store.values[INTENT_KEY] = {
            "agent_id": AGENT,
            "newest_job_id": max((job["job_id"] for job in sandbox.jobs), default=0),
            "max_tries": 1,
            "at": time.time() - 120,
        }

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("status", ["running", "queued", "completed"])
    def test_a_job_that_is_gone_on_with_leaves_the_input_alone(self, agenty_sandbox, make_context, state_store, status):
        job_id = self.first_try(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, status)

        assert self.retry(make_context, state_store) == job_id
        assert changes(agenty_sandbox) == []

    @pytest.mark.agenty_sandbox(manual=True)
    def test_urls_that_cannot_be_matter_to_a_start_only(self, agenty_sandbox, make_context, state_store):
        job_id = self.first_try(agenty_sandbox, make_context, state_store)

        assert self.retry(make_context, state_store, rendered_urls=[]) == job_id

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(("status", "max_tries"), [("aborted", 1), ("stopped", 1), ("running", 2)])
    def test_a_job_that_is_started_anew_or_after_a_clear_gets_the_urls_again(
        self, agenty_sandbox, make_context, state_store, status, max_tries
    ):
        agenty_sandbox.set_status(self.first_try(agenty_sandbox, make_context, state_store), status)

        job_id = self.retry(make_context, state_store, max_tries=max_tries)

        assert changes(agenty_sandbox) == SET_AND_STARTED
        agenty_sandbox.set_status(job_id, "completed")
        assert [row["url"] for row in AgentyHook().iter_result(job_id)] == [A, B]

    def test_only_an_intent_is_looked_into_before_the_input_is_set(self, agenty_sandbox, make_context, state_store):
        agenty_sandbox.add_older_jobs(AGENT, 2)
        self.only_intent(agenty_sandbox, state_store)

        self.retry(make_context, state_store)

        called = [f"{request.method} {request.path}" for request in agenty_sandbox.requests]
        looked, asked_for_newest = called[: called.index(SET_AND_STARTED[0])], 1
        assert looked.count("GET /jobs") > asked_for_newest
        assert changes(agenty_sandbox) == SET_AND_STARTED

    def test_a_job_that_an_intent_leads_to_leaves_the_input_alone(self, agenty_sandbox, make_context, state_store):
        self.only_intent(agenty_sandbox, state_store)
        lost = agenty_sandbox.start_job(AGENT)

        assert self.retry(make_context, state_store) == lost
        assert changes(agenty_sandbox) == []

    def test_several_jobs_that_an_intent_leads_to_leave_the_input_alone(
        self, agenty_sandbox, make_context, state_store
    ):
        self.only_intent(agenty_sandbox, state_store)
        agenty_sandbox.start_job(AGENT)
        agenty_sandbox.start_job(AGENT)

        with pytest.raises(AgentyAmbiguousStartError):
            self.retry(make_context, state_store)
        assert changes(agenty_sandbox) == []

    def test_a_start_that_is_sent_again_is_remembered_as_sent_then(
        self, agenty_sandbox, make_context, state_store, monkeypatch
    ):
        """A retry has to wait as long as the last start may be on its way, not the first."""
        agenty_sandbox.fault("POST", "/jobs/start", drop="before")
        task = start()

        task.execute(make_context(task, store=state_store))

        assert [key for key, _ in state_store.written] == [INTENT_KEY, INTENT_KEY, JOB_KEY]
        (_, first), (_, second) = state_store.written[:2]
        assert first["newest_job_id"] == second["newest_job_id"]
        assert first["at"] < second["at"]


class TestRetryWithoutStateStore:
    def retry(self, make_context):
        task = start(retries=1)
        return task.execute(make_context(task, try_number=2, max_tries=1))

    @pytest.mark.agenty_sandbox(manual=True)
    def test_a_job_that_is_adopted_leaves_the_input_alone(self, agenty_sandbox, make_context):
        lost = agenty_sandbox.start_job(AGENT)

        assert self.retry(make_context) == lost
        assert changes(agenty_sandbox) == []

    def test_a_job_that_is_started_anew_gets_the_urls(self, agenty_sandbox, make_context):
        assert [self.retry(make_context)] == agenty_sandbox.started_jobs
        assert changes(agenty_sandbox) == SET_AND_STARTED


class TestTemplates:
    def rendered(self, make_context, urls, *, native=False, **variables):
        with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1), render_template_as_native_obj=native):
            task = start(urls=urls)
        task.render_template_fields({**make_context(task), **variables})
        return task

    @pytest.mark.parametrize(
        ("urls", "native"),
        [
            (["{{ site }}/a", "{{ site }}/b?page=2"], False),
            ("{{ found }}", False),
            ("{{ found }}", True),
            ("{{ found | tojson }}", False),
            ("{{ found | join('\n') }}", False),
            ("{% for url in found %}\n{{ url }}\n{% endfor %}", False),
        ],
    )
    def test_a_template_gives_a_list(self, agenty_sandbox, make_context, urls, native):
        task = self.rendered(make_context, urls, native=native, site="https://example.com", found=[A, B])

        task.execute(make_context(task))

        assert AgentyHook().get_input(AGENT).data == (A, B)

    @pytest.mark.parametrize("native", [True, False])
    @pytest.mark.parametrize("durable", [True, False])
    def test_a_template_that_gives_none_does_not_mean_the_input_of_before(
        self, agenty_sandbox, make_context, native, durable
    ):
        task = self.rendered(make_context, "{{ found }}", native=native, found=None)
        task.durable = durable

        with pytest.raises(AgentyInputError, match="None"):
            task.execute(make_context(task))
        assert agenty_sandbox.requests == []
