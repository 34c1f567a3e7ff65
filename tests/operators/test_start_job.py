"""Starting a job: once for each task run, whatever is lost or crashes."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow import DAG
from airflow.exceptions import TaskDeferred

from airflow_provider_agenty.airflow_compat import AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyError,
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
    AgentyNotFoundError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator
from airflow_provider_agenty.waiting.task_state import INTENT_KEY, JOB_KEY

AGENT = "45l0wewqzk"
OTHER_AGENT = "w9qmlp5475"


def start(**parameters):
    return AgentyStartJobOperator(**{"task_id": "start", "agent_id": AGENT, "poll_interval": 0.05} | parameters)


class TestStart:
    def test_returns_the_id_of_the_job_at_once(self, agenty_sandbox, make_context):
        task = start()
        context = make_context(task)

        job_id = task.execute(context)

        assert [job_id] == agenty_sandbox.started_jobs
        assert context["ti"].pushed["_link_AgentyAgentLink"] == f"https://cloud.agenty.com/agents/scraping/{AGENT}"

    def test_waits_for_the_job_if_wanted_and_pushes_its_figures(self, agenty_sandbox, make_context):
        task = start(wait_for_completion=True, deferrable=False)
        context = make_context(task)

        job_id = task.execute(context)

        assert agenty_sandbox.job(job_id)["status"] == "completed"
        assert context["ti"].pushed["job"]["job_id"] == job_id
        assert context["ti"].pushed["job"]["status"] == "completed"
        assert context["ti"].pushed["job"]["pages_credit"] > 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_defers_if_wanted_with_nothing_but_primitives(self, agenty_sandbox, make_context):
        task = start(wait_for_completion=True, deferrable=True, timeout=timedelta(hours=1))
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(make_context(task))

        trigger = deferred.value.trigger
        path, arguments = trigger.serialize()
        assert deferred.value.method_name == "execute_complete"
        assert path == "airflow_provider_agenty.triggers.agenty.AgentyJobTrigger"
        assert arguments["job_id"] == agenty_sandbox.started_jobs[0]
        assert arguments["deadline"] == pytest.approx(time.time() + 3600, abs=60)
        assert all(isinstance(value, str | int | float | bool | None) for value in arguments.values())
        assert agenty_sandbox.key not in str(arguments)

    @pytest.mark.agenty_sandbox(manual=True)
    def test_execution_timeout_joins_the_deadline_of_the_trigger(self, agenty_sandbox, make_context):
        task = start(wait_for_completion=True, deferrable=True, execution_timeout=timedelta(seconds=90))
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(make_context(task))

        assert deferred.value.trigger.deadline == pytest.approx(time.time() + 90, abs=30)

    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"on_stopped": "ignore"}, "on_stopped"),
            ({"max_failed_ratio": 1.5}, "max_failed_ratio"),
            ({"max_failed_ratio": "half"}, "max_failed_ratio"),
            ({"poll_interval": 0}, "poll_interval"),
            ({"poll_interval": "10"}, "poll_interval"),
            ({"timeout": -1}, "timeout"),
            ({"timeout": timedelta(0)}, "timeout"),
        ],
    )
    def test_parameters_that_cannot_be_used_are_refused_when_the_dag_file_is_read(self, parameters, named):
        with pytest.raises(AgentyInputError, match=named):
            start(**parameters)

    @pytest.mark.parametrize("agent_id", ["", None, "None", "a/b", "../jobs", "45l0wewqzk?x=1", "ä", 1.5, True])
    def test_an_agent_id_that_can_be_none_is_refused_when_the_dag_file_is_read(self, agent_id):
        with pytest.raises(AgentyInputError, match="agent_id"):
            start(agent_id=agent_id)

    @pytest.mark.parametrize("agent_id", ["", None, "None", "a/b"])
    @pytest.mark.parametrize("durable", [True, False])
    def test_a_template_that_gives_no_agent_id_is_refused_before_anything_is_sent(
        self, agenty_sandbox, make_context, state_store, agent_id, durable
    ):
        task = start(agent_id="{{ agent }}", durable=durable)
        task.agent_id = agent_id

        with pytest.raises(AgentyInputError, match="agent_id"):
            task.execute(make_context(task, store=state_store))
        assert agenty_sandbox.requests == []
        assert state_store.values == {}

    def test_an_unknown_agent_fails_without_retries(self, agenty_sandbox, make_context):
        task = start(agent_id="nosuchagent")

        with pytest.raises(AgentyNotFoundError, match="/jobs/start") as error:
            task.execute(make_context(task))
        assert isinstance(error.value, AirflowFailException)


class TestOutcome:
    def test_an_aborted_job_fails_the_task_with_its_reason_and_its_last_log(self, agenty_sandbox, make_context, capsys):
        agenty_sandbox.plan(
            outcome="aborted",
            error="Not enough page credits",
            log=[("WARN", f"line {number}") for number in range(80)] + [("ERROR", "Out of credits")],
        )
        task = start(wait_for_completion=True, deferrable=False)

        with pytest.raises(AgentyJobFailedError, match="Not enough page credits") as error:
            task.execute(make_context(task))
        assert error.value.job.status == "aborted"
        assert len(error.value.log_entries) == 50
        told = capsys.readouterr().out
        assert "Out of credits" in told
        assert "line 79" in told
        assert "line 20" not in told
        assert not isinstance(error.value, AirflowFailException), "a retry may mend it"

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(
        ("on_stopped", "expected"), [("fail", AgentyJobStoppedError), ("skip", AirflowSkipException)]
    )
    def test_a_stopped_job_fails_or_skips(self, agenty_sandbox, make_context, on_stopped, expected):
        agenty_sandbox.script(["running", "stopping", "stopped"])
        task = start(wait_for_completion=True, deferrable=False, on_stopped=on_stopped)

        with pytest.raises(expected, match="stopped"):
            task.execute(make_context(task))

    @pytest.mark.parametrize(("ratio", "fails"), [(0.1, True), (0.25, False), (0, True), (None, False)])
    def test_too_many_failed_pages_fail_a_completed_job(self, agenty_sandbox, make_context, ratio, fails):
        agenty_sandbox.plan(pages=20, failed_pages=5)
        task = start(wait_for_completion=True, deferrable=False, max_failed_ratio=ratio)

        if fails:
            with pytest.raises(AgentyJobFailedError, match="max_failed_ratio"):
                task.execute(make_context(task))
        else:
            assert task.execute(make_context(task)) == agenty_sandbox.started_jobs[0]

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(("cancel", "stops"), [(True, 1), (False, 0)])
    def test_a_timeout_stops_the_job_once_if_wanted(self, agenty_sandbox, make_context, cancel, stops):
        task = start(wait_for_completion=True, deferrable=False, timeout=0.2, cancel_on_timeout=cancel)

        with pytest.raises(AgentyTimeoutError, match="not done in time"):
            task.execute(make_context(task))
        assert agenty_sandbox.stops == stops

    @pytest.mark.agenty_sandbox(manual=True)
    def test_a_stop_that_fails_does_not_hide_the_timeout(self, agenty_sandbox, make_context):
        agenty_sandbox.fault("GET", "/jobs/{id}/stop", status=503, times=None)
        task = start(wait_for_completion=True, deferrable=False, timeout=0.2)

        with pytest.raises(AgentyTimeoutError):
            task.execute(make_context(task))
        assert sum(request.path.endswith("/stop") for request in agenty_sandbox.requests) == 1

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(("cancel", "stops"), [(True, 1), (False, 0)])
    def test_airflows_execution_timeout_stops_the_job_once_and_is_kept(
        self, agenty_sandbox, make_context, cancel, stops
    ):
        class TimedOut(AgentyStartJobOperator):
            def follow_log(self, job, context):
                raise AirflowTaskTimeout("Timeout")

        task = TimedOut(
            task_id="start", agent_id=AGENT, wait_for_completion=True, deferrable=False, cancel_on_timeout=cancel
        )
        context = make_context(task)
        with pytest.raises(AirflowTaskTimeout):
            task.execute(context)
        context["ti"].state = "failed"
        task.on_kill()
        assert agenty_sandbox.stops == stops

    @pytest.mark.parametrize(
        "event",
        [
            None,
            {},
            "success",
            {"status": "weird", "job_id": 7, "message": ""},
            {"status": "weird", "job_id": 7, "message": "", "job": {"job_id": 7, "status": "completed"}},
            {"status": "success", "job_id": 7, "message": "ok"},
            {"status": "success", "job_id": 7, "message": "ok", "job": {"status": "completed"}},
            {"status": "success", "message": "ok", "job": {"job_id": 7, "status": "completed"}},
        ],
    )
    def test_an_event_that_is_not_understood_fails_loudly(self, make_context, event):
        task = start(wait_for_completion=True, deferrable=True)

        with pytest.raises(AgentyError, match="this version can't read"):
            task.execute_complete(make_context(task), event)


class TestRetry:
    """The table of what a retry finds (docs/when-things-go-wrong.md), on an Airflow with a task state store."""

    def first_try_then(self, sandbox, make_context, store, **parameters):
        task = start(**parameters)
        return task.execute(make_context(task, store=store, max_tries=1))

    def retry(self, make_context, store, *, max_tries=1, **parameters):
        task = start(**parameters)
        context = make_context(task, store=store, try_number=2, max_tries=max_tries)
        return task.execute(context), context

    def test_the_intent_is_stored_before_the_start_and_the_job_after_it(
        self, agenty_sandbox, make_context, state_store, mocker
    ):
        stored = []
        mocker.patch.object(state_store, "set", side_effect=lambda key, _: stored.append((key, agenty_sandbox.starts)))

        task = start()
        task.execute(make_context(task, store=state_store))

        assert stored == [(INTENT_KEY, 0), (JOB_KEY, 1)]

    def test_what_is_stored_holds_no_secret(self, agenty_sandbox, make_context, state_store):
        self.first_try_then(agenty_sandbox, make_context, state_store)

        assert state_store.values.keys() == {INTENT_KEY, JOB_KEY}
        assert agenty_sandbox.key not in str(state_store.values)

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(
        "status", ["submitted", "starting", "queued", "started", "running", "completing", "hibernating"]
    )
    def test_a_job_that_goes_on_is_attached_to_again(self, agenty_sandbox, make_context, state_store, status):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, status)

        again, context = self.retry(make_context, state_store)

        assert again == job_id
        assert agenty_sandbox.starts == 1
        assert context["ti"].pushed["_link_AgentyAgentLink"].endswith(AGENT)

    @pytest.mark.agenty_sandbox(manual=True)
    def test_waiting_goes_on_after_attaching_again(self, agenty_sandbox, make_context, state_store):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, "running")
        threading.Timer(0.3, agenty_sandbox.set_status, (job_id, "completed")).start()

        again, context = self.retry(make_context, state_store, wait_for_completion=True, deferrable=False)

        assert again == job_id
        assert context["ti"].pushed["job"]["status"] == "completed"
        assert agenty_sandbox.starts == 1

    @pytest.mark.parametrize("waiting", [True, False])
    def test_a_completed_job_is_taken(self, agenty_sandbox, make_context, state_store, waiting):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, "completed")

        again, context = self.retry(make_context, state_store, wait_for_completion=waiting, deferrable=True)

        assert again == job_id
        assert agenty_sandbox.starts == 1
        assert ("job" in context["ti"].pushed) is waiting

    def test_a_completed_job_with_too_many_failed_pages_is_not_taken(self, agenty_sandbox, make_context, state_store):
        agenty_sandbox.plan(pages=10, failed_pages=5, times=1)
        failing = {"wait_for_completion": True, "deferrable": False, "max_failed_ratio": 0.1}
        with pytest.raises(AgentyJobFailedError):
            self.first_try_then(agenty_sandbox, make_context, state_store, **failing)

        again, _ = self.retry(make_context, state_store, **failing)

        assert agenty_sandbox.started_jobs[1:] == [again]

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("status", ["stopping", "stopped", "aborted", "failed"])
    def test_a_job_that_is_lost_is_started_anew(self, agenty_sandbox, make_context, state_store, status):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, status)

        again, _ = self.retry(make_context, state_store)

        assert again != job_id
        assert agenty_sandbox.started_jobs == [job_id, again]

    def test_a_job_that_is_gone_is_started_anew(self, agenty_sandbox, make_context, state_store):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.fault("GET", f"/jobs/{job_id}", status=404, body={"message": "Not found"})

        again, _ = self.retry(make_context, state_store)

        assert agenty_sandbox.started_jobs == [job_id, again]

    def test_a_job_that_cannot_be_asked_is_not_replaced(self, agenty_sandbox, make_context, state_store):
        self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.fault("GET", "/jobs/{id}", status=503, times=None)

        with pytest.raises(AgentyUnavailableError):
            self.retry(make_context, state_store)
        assert agenty_sandbox.starts == 1

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("status", ["running", "completed"])
    def test_a_cleared_task_starts_anew(self, agenty_sandbox, make_context, state_store, status):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, status)

        again, _ = self.retry(make_context, state_store, max_tries=2)

        assert agenty_sandbox.started_jobs == [job_id, again]

    def test_another_agent_is_started_anew(self, agenty_sandbox, make_context, state_store):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        other = next(agent for agent in agenty_sandbox.agent_ids if agent != AGENT)

        again, _ = self.retry(make_context, state_store, agent_id=other)

        assert agenty_sandbox.started_jobs == [job_id, again]

    def test_durable_false_starts_anew_and_stores_nothing(self, agenty_sandbox, make_context, state_store):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store, durable=False)
        again, _ = self.retry(make_context, state_store, durable=False)

        assert agenty_sandbox.started_jobs == [job_id, again]
        assert state_store.written == []

    # A crash between the start and the storing of its job leaves only the intent.

    def only_intent(self, sandbox, store, *, age=120.0, max_tries=1):
        store.values[INTENT_KEY] = {
            "agent_id": AGENT,
            "newest_job_id": max((job["job_id"] for job in sandbox.jobs), default=0),
            "max_tries": max_tries,
            "at": time.time() - age,
        }

    @pytest.mark.parametrize("extra", [{"status": 429}, {"status": 425}])
    def test_a_start_that_certainly_did_not_arrive_is_not_looked_for(
        self, agenty_sandbox, make_context, state_store, extra
    ):
        refused = agenty_sandbox.fault("POST", "/jobs/start", times=None, **extra)
        with pytest.raises(AgentyUnavailableError):
            start().execute(make_context(start(), store=state_store, max_tries=1))
        refused.remove()
        others = agenty_sandbox.start_job(AGENT)
        job_id = start().execute(make_context(start(), store=state_store, max_tries=1, try_number=2))

        assert [job_id] == agenty_sandbox.started_jobs
        assert job_id != others

    def test_a_start_that_may_have_arrived_before_one_that_did_not_is_looked_for(
        self, agenty_sandbox, make_context, state_store
    ):
        agenty_sandbox.fault("POST", "/jobs/start", drop="before", times=1)
        refused = agenty_sandbox.fault("POST", "/jobs/start", status=429, times=None, after=1)
        with pytest.raises(AgentyUnavailableError):
            start().execute(make_context(start(), store=state_store, max_tries=1))
        refused.remove()
        arrived_late = agenty_sandbox.start_job(AGENT)

        assert start().execute(make_context(start(), store=state_store, max_tries=1, try_number=2)) == arrived_late
        assert agenty_sandbox.starts == 0

    def test_an_intent_without_a_newer_job_is_started(self, agenty_sandbox, make_context, state_store):
        agenty_sandbox.add_older_jobs(AGENT, 3)
        self.only_intent(agenty_sandbox, state_store)

        again, _ = self.retry(make_context, state_store)

        assert agenty_sandbox.started_jobs == [again]

    @pytest.mark.parametrize("status", ["running", "completed"])
    def test_an_intent_with_one_newer_job_adopts_it(self, agenty_sandbox, make_context, state_store, status):
        agenty_sandbox.add_older_jobs(AGENT, 3)
        self.only_intent(agenty_sandbox, state_store)
        lost = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(lost, status)

        again, _ = self.retry(make_context, state_store)

        assert again == lost
        assert agenty_sandbox.starts == 0
        assert state_store.values[JOB_KEY]["job_id"] == lost

    def test_a_job_of_agentys_scheduler_is_not_adopted(self, agenty_sandbox, make_context, state_store):
        self.only_intent(agenty_sandbox, state_store)
        scheduled = agenty_sandbox.start_job(AGENT, is_scheduled=True)

        again, _ = self.retry(make_context, state_store)

        assert again != scheduled
        assert agenty_sandbox.started_jobs == [again]

    def test_an_intent_with_several_newer_jobs_is_for_a_person(self, agenty_sandbox, make_context, state_store):
        self.only_intent(agenty_sandbox, state_store)
        several = [agenty_sandbox.start_job(AGENT), agenty_sandbox.start_job(AGENT)]

        with pytest.raises(AgentyAmbiguousStartError) as error:
            self.retry(make_context, state_store)
        assert sorted(error.value.candidates) == several
        assert all(str(job_id) in str(error.value) for job_id in several)
        assert isinstance(error.value, AirflowFailException), "no retries are used up"
        assert agenty_sandbox.starts == 0

    def test_an_intent_of_before_a_clear_is_not_followed(self, agenty_sandbox, make_context, state_store):
        self.only_intent(agenty_sandbox, state_store, max_tries=0)
        lost = agenty_sandbox.start_job(AGENT)

        again, _ = self.retry(make_context, state_store)

        assert again != lost

    def test_a_settled_intent_does_not_adopt_the_aborted_job(self, agenty_sandbox, make_context, state_store):
        job_id = self.first_try_then(agenty_sandbox, make_context, state_store)
        agenty_sandbox.set_status(job_id, "aborted")

        again, _ = self.retry(make_context, state_store)

        assert again != job_id

    @pytest.mark.agenty_sandbox(manual=True)
    def test_a_fresh_intent_is_waited_for_as_long_as_its_start_may_be_on_its_way(
        self, agenty_sandbox, make_context, state_store, monkeypatch
    ):
        monkeypatch.setenv(
            "AIRFLOW_CONN_AGENTY_DEFAULT",
            agenty_sandbox.connection_json.replace('"conn_type"', '"extra": {"timeout": {"read": 1}}, "conn_type"'),
        )
        self.only_intent(agenty_sandbox, state_store, age=0.0)
        threading.Timer(0.4, agenty_sandbox.start_job, (AGENT,)).start()

        again, _ = self.retry(make_context, state_store)

        assert agenty_sandbox.starts == 0
        assert again == agenty_sandbox.jobs[-1]["job_id"]

    def test_a_lost_answer_that_cannot_be_looked_into_is_left_to_the_retry(
        self, agenty_sandbox, make_context, state_store
    ):
        agenty_sandbox.fault("POST", "/jobs/start", drop="after")
        listing = agenty_sandbox.fault("GET", "/jobs", status=503, times=None, after=1)

        with pytest.raises(AgentyUnavailableError, match="retry"):
            self.first_try_then(agenty_sandbox, make_context, state_store)
        listing.remove()
        again, _ = self.retry(make_context, state_store)

        assert agenty_sandbox.started_jobs == [again]

    def test_an_intent_that_cannot_be_looked_into_is_left_to_the_next_retry(
        self, agenty_sandbox, make_context, state_store
    ):
        self.only_intent(agenty_sandbox, state_store)
        lost = agenty_sandbox.start_job(AGENT)
        listing = agenty_sandbox.fault("GET", "/jobs", status=503, times=None)

        with pytest.raises(AgentyUnavailableError, match=r"an earlier try was about to start it.*retry"):
            self.retry(make_context, state_store)
        listing.remove()

        assert self.retry(make_context, state_store)[0] == lost
        assert agenty_sandbox.starts == 0

    def test_a_start_accepted_without_a_job_is_for_a_person(self, agenty_sandbox, make_context, state_store):
        agenty_sandbox.fault("POST", "/jobs/start", body="<html>Welcome</html>")

        with pytest.raises(AgentyAmbiguousStartError):
            self.first_try_then(agenty_sandbox, make_context, state_store)
        assert sum(request.method == "POST" for request in agenty_sandbox.requests) == 1


class TestRetryWithoutStateStore:
    """Below Airflow 3.3 only the list of jobs can tell."""

    def retry(self, make_context, *, try_number=2, max_tries=1, **parameters):
        task = start(retries=1, **parameters)
        return task.execute(make_context(task, try_number=try_number, max_tries=max_tries))

    @pytest.mark.agenty_sandbox(manual=True)
    def test_the_one_active_job_since_the_run_began_is_adopted(self, agenty_sandbox, make_context):
        job_id = agenty_sandbox.start_job(AGENT)

        assert self.retry(make_context) == job_id
        assert agenty_sandbox.starts == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_a_job_of_the_second_in_which_the_run_began_is_adopted(self, agenty_sandbox, make_context, caplog):
        task = start(retries=1)
        context = make_context(task, try_number=2, max_tries=1)
        # The list has whole seconds.
        while datetime.now(UTC).microsecond < 50_000:
            time.sleep(0.01)
        context["dag_run"].start_date = datetime.now(UTC)
        job_id = agenty_sandbox.start_job(AGENT)

        assert task.execute(context) == job_id
        assert agenty_sandbox.starts == 0
        assert "taken as the one that an earlier try of this task started" in caplog.text
        assert "lost" not in caplog.text

    @pytest.mark.agenty_sandbox(manual=True)
    def test_waiting_goes_on_after_adopting(self, agenty_sandbox, make_context):
        job_id = agenty_sandbox.start_job(AGENT)

        with pytest.raises(TaskDeferred) as deferred:
            self.retry(make_context, wait_for_completion=True, deferrable=True)
        assert deferred.value.trigger.job_id == job_id
        threading.Timer(0.3, agenty_sandbox.set_status, (job_id, "completed")).start()
        assert self.retry(make_context, wait_for_completion=True, deferrable=False) == job_id
        assert agenty_sandbox.starts == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_durable_false_adopts_nothing(self, agenty_sandbox, make_context):
        agenty_sandbox.start_job(AGENT)

        assert [self.retry(make_context, durable=False)] == agenty_sandbox.started_jobs

    @pytest.mark.agenty_sandbox(manual=True)
    def test_several_active_jobs_are_for_a_person(self, agenty_sandbox, make_context):
        agenty_sandbox.start_job(AGENT)
        agenty_sandbox.start_job(AGENT)

        with pytest.raises(AgentyAmbiguousStartError):
            self.retry(make_context)
        assert agenty_sandbox.starts == 0

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("status", ["stopping", "stopped", "aborted", "failed"])
    def test_a_job_that_ended_badly_is_not_adopted(self, agenty_sandbox, make_context, status):
        agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), status)

        assert [self.retry(make_context)] == agenty_sandbox.started_jobs

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("waiting", [{}, {"wait_for_completion": True, "deferrable": False}])
    def test_the_one_completed_job_since_the_run_began_is_adopted(self, agenty_sandbox, make_context, caplog, waiting):
        job_id = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(job_id, "completed")

        assert self.retry(make_context, **waiting) == job_id
        assert agenty_sandbox.starts == 0
        assert "made since this run began and completed" in caplog.text

    @pytest.mark.agenty_sandbox(manual=True)
    def test_a_completed_job_beside_an_aborted_one_is_adopted(self, agenty_sandbox, make_context):
        agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), "aborted")
        job_id = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(job_id, "completed")

        assert self.retry(make_context) == job_id

    @pytest.mark.agenty_sandbox(manual=True)
    def test_an_active_job_comes_before_completed_ones(self, agenty_sandbox, make_context):
        for _ in range(2):
            agenty_sandbox.set_status(agenty_sandbox.start_job(AGENT), "completed")
        job_id = agenty_sandbox.start_job(AGENT)

        assert self.retry(make_context) == job_id

    @pytest.mark.agenty_sandbox(manual=True)
    def test_several_completed_jobs_are_for_a_person(self, agenty_sandbox, make_context):
        job_ids = [agenty_sandbox.start_job(AGENT) for _ in range(2)]
        for job_id in job_ids:
            agenty_sandbox.set_status(job_id, "completed")

        with pytest.raises(AgentyAmbiguousStartError, match="completed") as refused:
            self.retry(make_context)
        assert refused.value.candidates == tuple(reversed(job_ids))
        assert agenty_sandbox.starts == 0

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(("waits", "starts"), [(True, 1), (False, 0)])
    def test_too_many_failed_pages_are_a_bad_end_where_it_is_waited_for(
        self, agenty_sandbox, make_context, waits, starts
    ):
        job_id = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(job_id, "completed", pages_total=10, pages_processed=10, pages_failed=5)

        if waits:
            with pytest.raises(TaskDeferred):
                self.retry(make_context, wait_for_completion=True, deferrable=True, max_failed_ratio=0.1)
        else:
            self.retry(make_context, max_failed_ratio=0.1)
        assert agenty_sandbox.starts == starts

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("mapped", [False, True])
    def test_a_job_that_another_start_task_of_the_run_holds_is_not_adopted(self, agenty_sandbox, make_context, mapped):
        others = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(others, "completed")
        with DAG("twice", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
            if mapped:
                AgentyStartJobOperator.partial(task_id="first").expand(agent_id=[AGENT])
            else:
                AgentyStartJobOperator(task_id="first", agent_id=AGENT)
            again = start(retries=1, task_id="second")
        context = make_context(again, try_number=2, max_tries=1, xcoms={("first", "job_id"): others})

        job_id = again.execute(context)

        assert [job_id] == agenty_sandbox.started_jobs
        assert job_id != others

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("status", ["running", "completed"])
    def test_with_urls_a_job_is_adopted_if_the_input_is_this_tasks(self, agenty_sandbox, make_context, status):
        urls = ["https://example.com/1", "https://example.com/2"]
        AgentyHook().set_input(AGENT, urls)
        job_id = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(job_id, status)

        assert self.retry(make_context, urls=urls) == job_id
        assert agenty_sandbox.starts == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_with_urls_a_completed_job_of_another_input_is_for_a_person(self, agenty_sandbox, make_context):
        AgentyHook().set_input(AGENT, ["https://example.com/others"])
        job_id = agenty_sandbox.start_job(AGENT)
        agenty_sandbox.set_status(job_id, "completed")

        with pytest.raises(AgentyAmbiguousStartError, match="the input of the agent is not what this task sets"):
            self.retry(make_context, urls=["https://example.com/1"])
        assert agenty_sandbox.starts == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_jobs_of_before_the_run_and_of_the_scheduler_are_not_adopted(self, agenty_sandbox, make_context):
        agenty_sandbox.add_older_jobs(AGENT, 2, status="running")
        agenty_sandbox.start_job(AGENT, is_scheduled=True)

        assert [self.retry(make_context)] == agenty_sandbox.started_jobs

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(("try_number", "max_tries"), [(1, 1), (2, 2), (3, 3)])
    def test_the_first_try_of_a_run_or_after_a_clear_adopts_nothing(
        self, agenty_sandbox, make_context, try_number, max_tries
    ):
        agenty_sandbox.start_job(AGENT)

        assert [self.retry(make_context, try_number=try_number, max_tries=max_tries)] == agenty_sandbox.started_jobs


class TestOnKill:
    def killed_while_waiting(self, sandbox, make_context, *, state, **parameters):
        """Call on_kill from the process that waits, as Airflow's signal handler does."""
        task = start(wait_for_completion=True, deferrable=False, **parameters)
        context = make_context(task)
        context["ti"].state = state
        waiting = threading.Thread(target=lambda: task.execute(context), daemon=True)
        waiting.start()
        sandbox.wait_for_request("GET", "/jobs/{id}")
        began = time.monotonic()
        task.on_kill()
        took = time.monotonic() - began
        self.stops_by_then = sandbox.stops
        sandbox.set_status(sandbox.jobs[-1]["job_id"], "completed")
        waiting.join(10)
        return took

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("state", ["failed", "success", "restarting", "skipped"])
    def test_a_task_that_a_user_ended_stops_its_job_once(self, agenty_sandbox, make_context, state):
        self.killed_while_waiting(agenty_sandbox, make_context, state=state)

        assert self.stops_by_then == 1, "the process may be gone right after on_kill"
        assert agenty_sandbox.stops == 1

    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("state", ["running", "up_for_retry", "queued", "scheduled", None])
    def test_a_shutdown_or_a_lost_heartbeat_stops_nothing(self, agenty_sandbox, make_context, state):
        self.killed_while_waiting(agenty_sandbox, make_context, state=state)

        assert agenty_sandbox.stops == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_cancel_on_kill_false_stops_nothing(self, agenty_sandbox, make_context):
        self.killed_while_waiting(agenty_sandbox, make_context, state="failed", cancel_on_kill=False)

        assert agenty_sandbox.stops == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_no_answer_from_airflow_means_no_stop_and_no_error(self, agenty_sandbox, make_context, mocker):
        mocker.patch("airflow_provider_agenty.base_operators.KILL_SECONDS", 0.5)
        mocker.patch("airflow_provider_agenty.base_operators.current_task_state", side_effect=lambda _: time.sleep(60))

        took = self.killed_while_waiting(agenty_sandbox, make_context, state="failed")

        assert took < 4
        assert agenty_sandbox.stops == 0

    @pytest.mark.agenty_sandbox(manual=True)
    def test_a_stop_that_hangs_or_fails_neither_blocks_nor_raises(self, agenty_sandbox, make_context, mocker):
        mocker.patch("airflow_provider_agenty.base_operators.KILL_SECONDS", 0.5)
        agenty_sandbox.fault("GET", "/jobs/{id}/stop", delay_before=3)

        assert self.killed_while_waiting(agenty_sandbox, make_context, state="failed") < 4

    def test_before_there_is_a_job_there_is_nothing_to_stop(self, agenty_sandbox):
        start().on_kill()

        assert agenty_sandbox.requests == []
