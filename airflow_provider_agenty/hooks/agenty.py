"""The hook: the connection to Agenty, and a method for each of its calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import metrics, parameters
from airflow_provider_agenty.api import agents, inputs, logs, pages, result_pages, start_job
from airflow_provider_agenty.api.agents import Agent
from airflow_provider_agenty.api.inputs import AgentInput
from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.pages import JobPage
from airflow_provider_agenty.connection import field_behaviour, form_widgets
from airflow_provider_agenty.hooks.agent_input import checked_input
from airflow_provider_agenty.hooks.landing import LandingHook
from airflow_provider_agenty.waiting.job_watch import JobWatch, stop_spending, wait
from airflow_provider_agenty.waiting.outcome import conclude

if TYPE_CHECKING:
    from airflow_provider_agenty.api.start_job import ListedJobs

LAST_LOG_ENTRIES = 50


class AgentyHook(LandingHook):
    """
    Talks to Agenty's Jobs API.

    The connection is read when it is first needed, in the thread that needs it. All methods raise the errors of
    :mod:`airflow_provider_agenty.exceptions`. A parameter that can't be used is an :class:`AgentyInputError`, and
    nothing is sent.

    :param agenty_conn_id: The Airflow connection, of type ``agenty``. Default ``agenty_default``.
    """

    # The form, before Airflow 3.2, which does not find these methods in a base class.

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels and placeholders."""
        return field_behaviour()

    def start_job(
        self,
        agent_id: str,
        *,
        urls: str | Iterable[str] | None = None,
        newer_than: int | None = None,
        prepare: Callable[[int], None] | None = None,
    ) -> Job:
        """
        Start a job of an agent, once, also where an answer is lost (``POST /jobs/start``).

        The newest job of the agent is remembered first. If the outcome of the start is not known, the list of jobs
        tells: a newer job that Agenty's own scheduler did not start is the one.

        :param agent_id: The agent.
        :param urls: The URLs that the agent scrapes. They are set as its input (``PUT /inputs/{agent_id}``) right
            before the start is sent, each time it is. The input stays set. Default: it is left as it is.
        :param newer_than: The id of the agent's newest job before the start, if :meth:`newest_job_id` told it before.
            Default: it is asked for now.
        :param prepare: Called with that id right before the start is sent, each time it is, once the input is set. If
            it raises, or the input can't be set, the start is not sent.
        :return: The job.
        :raises AgentyAmbiguousStartError: if it can't be told whether there is a job, or which one it is.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        agent_id = parameters.agent_id(agent_id)
        agent_input = None if urls is None else AgentInput("manual", parameters.urls(urls))
        parameters.check_function("prepare", prepare)
        newest = None
        if newer_than is not None:
            newer_than = parameters.whole_number("newer_than", newer_than)
        else:
            newest = start_job.newest_job(self._transport, agent_id)
            newer_than = newest.job_id if newest else start_job.NO_JOB

        def prepare_start() -> None:
            if agent_input is not None:
                inputs.warn_of_unread_input(newest)
                self._set_input(agent_id, agent_input)
            if prepare is not None:
                prepare(newer_than)

        job = start_job.start_job(self._transport, agent_id, newer_than=newer_than, prepare=prepare_start)
        self.log.info("Started job %d of agent %s", job.job_id, agent_id)
        return job

    def newest_job_id(self, agent_id: str) -> int:
        """
        Return the id of the agent's newest job, 0 if it has none (``GET /jobs?agent_id=``).

        :param agent_id: The agent.
        """
        newest = start_job.newest_job(self._transport, parameters.agent_id(agent_id))
        return newest.job_id if newest else start_job.NO_JOB

    def find_started_job(self, agent_id: str, *, newer_than: int, patience: float | timedelta = 0.0) -> Job | None:
        """
        Return the job that a start with an unknown outcome made, ``None`` if it made none (``GET /jobs?agent_id=``).

        :param agent_id: The agent.
        :param newer_than: The id of the agent's newest job before the start.
        :param patience: Seconds, or a ``timedelta``, for which the start may still be on its way. Default 0.
        """
        return start_job.look_for_started_job(
            self._transport,
            parameters.agent_id(agent_id),
            newer_than=parameters.whole_number("newer_than", newer_than),
            patience=parameters.seconds("patience", patience, may_be_zero=True),
        )

    def recent_jobs(self, agent_id: str, *, since: datetime | None = None) -> ListedJobs:
        """
        Return the newest jobs of an agent, whoever started them (``GET /jobs?agent_id=``).

        :param agent_id: The agent.
        :param since: As far back as this moment, aware, by Airflow's clock. Default: 1,000 jobs.
        :return: The jobs, and what Agenty's clock says.
        :raises AgentyAmbiguousStartError: if the list of jobs does not tell.
        """
        since = None if since is None else parameters.aware_datetime("since", since)
        return start_job.recent_jobs(self._transport, parameters.agent_id(agent_id), since=since)

    def get_job(self, job_id: int | str) -> Job:
        """
        Return a job as it is now (``GET /jobs/{job_id}``).

        :param job_id: The job.
        :raises AgentyNotFoundError: if there is no such job.
        """
        job_id = parameters.job_id(job_id)
        return self._transport.read(f"/jobs/{job_id}").job(job_id)

    def stop_job(self, job_id: int | str) -> Job:
        """
        Ask Agenty to stop a job (``GET /jobs/{job_id}/stop``). On a job that is over it changes nothing.

        The request is repeated only where it certainly did not arrive.

        :param job_id: The job.
        :return: The job as Agenty answered: often still ``stopping``.
        :raises AgentyNotFoundError: if there is no such job.
        """
        job_id = parameters.job_id(job_id)
        # It is a GET that changes something, and it is documented to answer HTTP 400 with the job.
        job = self._transport.send("GET", f"/jobs/{job_id}/stop", refusal_may_hold_job=True).job(job_id)
        if job.is_stopped or not job.is_terminal:
            metrics.count(metrics.JOBS_STOPPED, agent_id=job.agent_id, conn_id=self.agenty_conn_id)
        return job

    def get_input(self, agent_id: str) -> AgentInput:
        """
        Return what an agent is to scrape (``GET /inputs/{agent_id}``).

        :param agent_id: The agent.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        return AgentInput.from_answer(self._transport.read(f"/inputs/{parameters.agent_id(agent_id)}"))

    def set_input(self, agent_id: str, new: AgentInput | Mapping[str, Any] | str | Iterable[str]) -> None:
        """
        Set what an agent scrapes from its next job on, whoever starts it (``PUT /inputs/{agent_id}``).

        The request is repeated like a read: set twice is the same as set once.

        :param agent_id: The agent.
        :param new: The URLs, in a list or in a text with one on each line; or an input of any type, as
            :meth:`get_input` returns it or as a mapping with the fields of Agenty's Inputs API.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        self._set_input(parameters.agent_id(agent_id), checked_input(new))

    def _set_input(self, agent_id: str, new: AgentInput) -> None:
        inputs.set_input(self._transport, agent_id, new)
        what = f"{len(new.data)} URL{'' if len(new.data) == 1 else 's'}" if new.lists_urls else f"{new.type} {new.id}"
        self.log.info("Set the input of agent %s: %s", agent_id, what)

    def get_agent(self, agent_id: str) -> Agent:
        """
        Return an agent (``GET /agents/{agent_id}``).

        :param agent_id: The agent.
        :raises AgentyNotFoundError: if there is no such agent.
        """
        return agents.get_agent(self._transport, parameters.agent_id(agent_id))

    def find_agent(self, name: str) -> Agent:
        """
        Return the agent of a name, as the list of agents has it (``GET /agents``).

        :param name: The whole name; upper and lower case count.
        :raises AgentyInputError: if none or several have it; it lists agents with their ids.
        """
        name = parameters.text("name", name)
        return agents.find_agent(self._transport, name, shown=parameters.shown(name))

    def list_agents(
        self,
        *,
        project_id: int | str | None = None,
        tag: str | None = None,
        type: str | None = None,  # noqa: A002 - what Agenty calls it
    ) -> Iterator[Agent]:
        """
        Yield agents, a page at a time as they are asked for, none of them twice (``GET /agents``).

        If the list leaves out what is asked for, each agent is asked for too (``GET /agents/{agent_id}``).

        :param project_id: Only the agents of this project (``GET /projects/{project_id}``). Default: all.
        :param tag: Only agents with this tag. Default: all.
        :param type: Only agents of this type, such as ``scraping``. Default: all.
        :raises AgentyNotFoundError: if there is no such project.
        """
        return agents.iter_agents(
            self._transport,
            project_id=parameters.optional(parameters.project_id, project_id),
            tag=None if tag is None else parameters.text("tag", tag),
            agent_type=None if type is None else parameters.text("type", type),
        )

    def list_jobs(self, agent_id: str | None = None, *, since: datetime | None = None) -> Iterator[Job]:
        """
        Yield jobs, newest first, a page at a time as they are asked for, none of them twice (``GET /jobs``).

        :param agent_id: The agent. Default: all agents of the account.
        :param since: Only jobs made at this moment, aware, or later, in whole seconds. No further page is asked for
            once one was made before; where jobs do not come newest first, the list is read to its end. Default: all.
        """
        return pages.iter_jobs(
            self._transport,
            agent_id=parameters.optional(parameters.agent_id, agent_id),
            since=None if since is None else parameters.aware_datetime("since", since),
        )

    def list_job_page(self, *, limit: int, offset: int = 0) -> JobPage:
        """
        Return one page of the list of all jobs (``GET /jobs``). A row that is no job is passed over.

        :param limit: The number of jobs to ask for, at most 1000.
        :param offset: The number of jobs to skip. Default 0.
        """
        limit, offset = parameters.whole_number("limit", limit, at_least=1), parameters.offset(offset)
        return pages.read_job_page(self._transport, agent_id=None, limit=limit, offset=offset, skips_odd_rows=True)

    def iter_result(self, job_id: int | str, *, collection: int = 1, modified: bool = True) -> Iterator[dict[str, Any]]:
        """
        Yield the rows of a job's result (``GET /jobs/{job_id}/result``), the next pages already on their way.

        Memory holds a few pages, whatever the size of the result.

        :param job_id: The job.
        :param collection: The collection of the agent, counted from 1. Default 1.
        :param modified: Whether the result after post-processing is meant, where there is one. Default true.
        :return: Rows as Agenty gives them: keys are the agent's field names, and may differ from row to row. A number
            that fits neither into 64 bits nor into a float is its text, and so are NaN and Infinity.
        :raises AgentyError: if Agenty gives fewer or more rows than it says there are, or says that of another number.
        """
        return result_pages.iter_result(
            self._transport,
            parameters.job_id(job_id),
            collection=parameters.collection(collection),
            modified=parameters.boolean("modified", modified),
        )

    def count_result(self, job_id: int | str, *, collection: int = 1, modified: bool = True) -> int:
        """Return how many rows :meth:`iter_result` yields (``GET /jobs/{job_id}/result?limit=1``)."""
        return result_pages.read_result_total(
            self._transport,
            parameters.job_id(job_id),
            collection=parameters.collection(collection),
            modified=parameters.boolean("modified", modified),
        )

    def iter_logs(self, job_id: int | str, *, offset: int = 0) -> Iterator[LogEntry]:
        """
        Yield the entries of a job's log, oldest first (``GET /jobs/{job_id}/logs``).

        :param job_id: The job.
        :param offset: The number of lines to skip. Default 0; :attr:`LogEntry.next_offset` is where to go on.
        """
        return logs.iter_logs(self._transport, parameters.job_id(job_id), offset=parameters.offset(offset))

    def last_log_entries(self, job_id: int | str, *, count: int = LAST_LOG_ENTRIES) -> list[LogEntry]:
        """
        Return the last entries of a job's log, oldest first; none if it can't be read (``GET /jobs/{job_id}/logs``).

        It tells why a job failed, and must not fail itself. After a minute it returns what it has read so far.

        :param job_id: The job.
        :param count: The number of entries. Default 50.
        """
        job_id, count = parameters.job_id(job_id), parameters.whole_number("count", count)
        return logs.last_entries(self._transport, job_id, count=count)

    def wait_for_job(
        self,
        job_id: int | str,
        *,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,
        max_failed_ratio: float | None = None,
        max_credits: float | None = None,
        stall_timeout: float | timedelta | None = None,
        queue_timeout: float | timedelta | None = None,
    ) -> Job:
        """
        Wait until a job is over (``GET /jobs/{job_id}``, again and again). Only ``max_credits`` stops it.

        :param job_id: The job.
        :param poll_interval: Seconds between two polls, or a ``timedelta``. Default 10.
        :param timeout: Seconds to wait at most, or a ``timedelta``. Default: without end.
        :param max_failed_ratio: The share of its pages, 0 to 1, above which failed pages make a completed job count as
            failed. Default: any share will do.
        :param max_credits: The page credits above which the job is stopped (``GET /jobs/{job_id}/stop``). Default: any.
        :param stall_timeout: Seconds, or a ``timedelta``, for which the job's state, pages and credits may stay the
            same. Default: for ever.
        :param queue_timeout: Seconds, or a ``timedelta``, for which the job may wait for a worker of Agenty. Default:
            for ever.
        :return: The completed job.
        :raises AgentyBudgetError: if it cost more than ``max_credits``.
        :raises AgentyJobFailedError: if it was aborted, or too many of its pages failed.
        :raises AgentyJobStoppedError: if somebody stopped it.
        :raises AgentyStalledError: if it stood still or waited for a worker for too long.
        :raises AgentyTimeoutError: if it is not done in time.
        """
        job_id = parameters.job_id(job_id)
        poll_interval = parameters.seconds("poll_interval", poll_interval)
        if timeout is not None:
            timeout = parameters.seconds("timeout", timeout, may_be_zero=True)
        watch = JobWatch(
            job_id,
            deadline=None if timeout is None else time.time() + timeout,
            max_failed_ratio=parameters.share("max_failed_ratio", max_failed_ratio),
            max_credits=parameters.page_credits("max_credits", max_credits),
            stall_timeout=parameters.optional_seconds("stall_timeout", stall_timeout),
            queue_timeout=parameters.optional_seconds("queue_timeout", queue_timeout),
            poll_interval=poll_interval,
            log=self.log,
        )
        outcome = wait(lambda: self.get_job(job_id), watch, poll_interval=poll_interval)
        outcome = stop_spending(self, outcome, self.log)
        return conclude(outcome, log_entries=lambda: self.last_log_entries(job_id))
