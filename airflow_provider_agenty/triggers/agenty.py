"""Triggers: waiting for a job without a worker, and watching for jobs that end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Hashable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_agenty import metrics, parameters
from airflow_provider_agenty.airflow_compat import current_task_state, event_trigger_base, read_xcom
from airflow_provider_agenty.connection import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.templates import is_template
from airflow_provider_agenty.waiting.async_hook import in_threads, open_hook, shared_threads
from airflow_provider_agenty.waiting.job_watch import JobWatch, stop_job, stop_spending
from airflow_provider_agenty.waiting.log_copy import TriggerLogCopy
from airflow_provider_agenty.waiting.outcome import BUDGET, JOB_XCOM, POLL_ERROR, SUCCESS, Outcome
from airflow_provider_agenty.waiting.shared_poller import JobPoller
from airflow_provider_agenty.waiting.task_state import JOB_ID_XCOM
from airflow_provider_agenty.watching.job_feed import JobFeed, JobListProducer
from airflow_provider_agenty.watching.watcher_state import Listing, WatcherState

if TYPE_CHECKING:
    from airflow.triggers.base import BaseEventTrigger
    from airflow.triggers.shared_stream import SharedStreamProducer
else:
    BaseEventTrigger = event_trigger_base()

STOPS = "stops"
"""The purpose of the threads in which triggers stop jobs."""

STATUSES = ("completed", "aborted", "stopped", "failed")
"""The states in which a job may end."""

COMPLETED = ("completed",)
"""The states in which a job fires that a watcher of an earlier version watches for."""

SECONDS_BEFORE_LAST_EVENT = 10.0
"""
Minimum seconds between the last of several events and the one before it.

Airflow holds back an event that arrives while it creates a run for the previous one (#56050, seen on 3.3.2). The run of
the last event has those that were held back.
"""


class AgentyJobTrigger(BaseTrigger):
    """
    Waits for a job and sends one event: the outcome (``GET /jobs/{job_id}``, shared with others ``GET /jobs``).

    The hook's calls run in threads, the event loop is never blocked. Arguments are JSON primitives, and are only ever
    added to, with defaults: triggers of an earlier version may be in the database.

    :param job_id: The job.
    :param agenty_conn_id: The Airflow connection. Default ``agenty_default``.
    :param poll_interval: Seconds between two polls. Default 10.
    :param deadline: When to give up, in seconds since the epoch. Default: never.
    :param max_failed_ratio: The share of failed pages above which a completed job counts as failed. Default: any.
    :param cancel_on_kill: Whether the job is stopped when a user marks or clears the waiting task. Default false.
    :param stream_logs: Whether the job's log is copied into the task's. Default false.
    :param log_offset: The number of lines of the job's log that were copied before. Default 0.
    :param end_from_trigger: Whether the task ends with the trigger if the job succeeded, without a worker. Default
        false.
    :param max_credits: The page credits above which the job is stopped, before the event is sent. Default: any.
    :param stall_timeout: Seconds for which the job's state, pages and credits may stay the same. Default: for ever.
    :param queue_timeout: Seconds for which the job may wait for a worker of Agenty. Default: for ever.
    """

    _watch: JobWatch | None = None
    """What has seen the job's state, once this trigger waits."""

    def __init__(
        self,
        job_id: int,
        agenty_conn_id: str = DEFAULT_CONNECTION,
        poll_interval: float = 10.0,
        deadline: float | None = None,
        max_failed_ratio: float | None = None,
        cancel_on_kill: bool = False,
        stream_logs: bool = False,
        log_offset: int = 0,
        end_from_trigger: bool = False,
        max_credits: float | None = None,
        stall_timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # These two may be templates where the task starts in the triggerer. Airflow renders them before it runs this.
        self.job_id = job_id if is_template(job_id) else parameters.job_id(job_id)
        self.agenty_conn_id = (
            agenty_conn_id if is_template(agenty_conn_id) else parameters.agenty_conn_id(agenty_conn_id)
        )
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)
        self.deadline = parameters.epoch_seconds("deadline", deadline)
        self.max_failed_ratio = parameters.share("max_failed_ratio", max_failed_ratio)
        self.cancel_on_kill = parameters.boolean("cancel_on_kill", cancel_on_kill)
        self.stream_logs = parameters.boolean("stream_logs", stream_logs)
        self.log_offset = parameters.whole_number("log_offset", log_offset)
        self.end_from_trigger = parameters.boolean("end_from_trigger", end_from_trigger)
        self.max_credits = parameters.page_credits("max_credits", max_credits)
        self.stall_timeout = parameters.optional_seconds("stall_timeout", stall_timeout)
        self.queue_timeout = parameters.optional_seconds("queue_timeout", queue_timeout)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the trigger's class and arguments, from which Airflow makes it anew."""
        return "airflow_provider_agenty.triggers.agenty.AgentyJobTrigger", {
            "job_id": self.job_id,
            "agenty_conn_id": self.agenty_conn_id,
            "poll_interval": self.poll_interval,
            "deadline": self.deadline,
            "max_failed_ratio": self.max_failed_ratio,
            "cancel_on_kill": self.cancel_on_kill,
            "stream_logs": self.stream_logs,
            "log_offset": self.log_offset,
            "end_from_trigger": self.end_from_trigger,
            "max_credits": self.max_credits,
            "stall_timeout": self.stall_timeout,
            "queue_timeout": self.queue_timeout,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until waiting is over, and send the outcome."""
        try:
            # A template that was rendered here may have come to nothing.
            self.job_id = parameters.job_id(self.job_id)
            self.agenty_conn_id = parameters.agenty_conn_id(self.agenty_conn_id)
        except AgentyInputError as error:
            yield TriggerEvent(Outcome(POLL_ERROR, 0, str(error), error=AgentyInputError.__name__).to_dict())
            return
        self._watch = watch = JobWatch(
            self.job_id,
            deadline=self.deadline,
            max_failed_ratio=self.max_failed_ratio,
            max_credits=self.max_credits,
            stall_timeout=self.stall_timeout,
            queue_timeout=self.queue_timeout,
            poll_interval=self.poll_interval,
            log=self.log,
        )
        waiting = JobPoller.shared(self.agenty_conn_id, self.poll_interval).wait(watch)
        if self.stream_logs:
            copy = TriggerLogCopy(
                self.agenty_conn_id, self.job_id, self.log, offset=self.log_offset, task_instance=self.task_instance
            )
            waiting = copy.beside(waiting, watch, poll_interval=self.poll_interval)
        outcome = await waiting
        if outcome.status == BUDGET:
            outcome = await self._stop_spending(outcome)
        yield self._event(outcome)

    async def _stop_spending(self, outcome: Outcome) -> Outcome:
        """Stop the job before the event: until a worker is free, it would go on."""
        try:
            hook = await open_hook(self.agenty_conn_id)
            return await in_threads(shared_threads(STOPS, self.agenty_conn_id), stop_spending, hook, outcome, self.log)
        except Exception as error:
            self.log.warning("Job %d is not stopped yet, the task will do it: %s", self.job_id, type(error).__name__)
            return outcome

    def _event(self, outcome: Outcome) -> TriggerEvent:
        if not self.end_from_trigger or outcome.status != SUCCESS or outcome.job is None:
            return TriggerEvent(outcome.to_dict())
        job = outcome.job
        if self.task_instance is not None:
            # In dag.test there is none, and the sensor polls the job once more.
            metrics.count_end(job, self.agenty_conn_id)
        return TaskSuccessEvent(
            xcoms={"return_value": job.job_id, JOB_XCOM: job.to_dict(), **AgentyAgentLink.xcoms(job)}
        )

    async def on_kill(self) -> None:
        """Stop the job, once, when a user marks or clears the waiting task (Airflow 3.3 and later)."""
        is_over = self._watch is not None and self._watch.has_seen_the_end
        if self.cancel_on_kill and not is_over and not await self._is_waited_for_elsewhere():
            await in_threads(shared_threads(STOPS, self.agenty_conn_id), self._stop_job)

    async def _is_waited_for_elsewhere(self) -> bool:
        """
        Return whether the task still waits for this job.

        Airflow calls :meth:`on_kill` also when it has given the trigger to another triggerer, because this one sent no
        heartbeat for a while (seen on 3.3.2). No answer means that nothing is stopped.
        """
        if self.task_instance is None:
            return False
        try:
            if await sync_to_async(current_task_state)(self.task_instance) != "deferred":
                return False
            # The next try of a task that was cleared may wait already, for a job of its own. A sensor pushes none.
            job_id = await sync_to_async(read_xcom)(self.task_instance, JOB_ID_XCOM)
        except Exception as error:
            self.log.warning("Job %d is not stopped: %s", self.job_id, type(error).__name__)
            return True
        if job_id not in (None, self.job_id):
            return False
        self.log.info("Job %d is not stopped: the task still waits for it, in another triggerer", self.job_id)
        return True

    def _stop_job(self) -> None:
        from airflow_provider_agenty.hooks.agenty import AgentyHook

        # Airflow gives a trigger 30 s to be killed.
        stop_job(AgentyHook(self.agenty_conn_id), self.job_id, self.log)


class AgentyJobEventTrigger(BaseEventTrigger):
    """
    Fires for each job that completes, whoever started it: for ``AssetWatcher``, on Airflow 3 and later.

    With ``statuses`` it fires for jobs that end in other states too, or instead; with ``agent_id`` for those of one
    agent. It polls the list of jobs (``GET /jobs``).

    A job fires once. Jobs that end in a state which is not asked for do not fire, nor do those that were over before
    the first poll. On Airflow 3.3 and later, the asset's state store keeps what was seen, for each set of statuses.
    Before that a restart of the triggerer loses jobs that end meanwhile. On Airflow 2 the class can be imported, and
    there is no use for it.

    The payload of an event is the job, as :meth:`Job.to_dict` gives it, and ``agenty_conn_id``; ``status`` says how it
    ended. Errors never end the watch: they are logged, and the list of jobs is polled again. After a wrong key, or
    another error that only a person can change, that is five minutes later at the earliest.

    Other arguments, such as ``queue``, go to Airflow's own trigger.

    :param agent_id: The agent. Default: all agents of the account.
    :param agenty_conn_id: The Airflow connection. Default ``agenty_default``.
    :param poll_interval: Seconds between two polls of the list of jobs, or a ``timedelta``. All watchers with the same
        connection and interval share them. Default 60.
    :param statuses: The states in which a job ends to fire: of ``completed``, ``aborted``, ``stopped`` and ``failed``.
        Default: ``completed`` alone.
    :raises AgentyInputError: naming the parameter that can't be used.
    """

    def __init__(
        self,
        agent_id: str | None = None,
        agenty_conn_id: str = DEFAULT_CONNECTION,
        poll_interval: float | timedelta = 60.0,
        statuses: Collection[str] = COMPLETED,
        **kwargs: Any,
    ) -> None:
        # Airflow's own trigger ignores what it does not know, so a misspelled parameter would watch all jobs.
        unknown = kwargs.keys() - {"queue"} - inspect.signature(BaseEventTrigger.__init__).parameters.keys()
        if unknown:
            raise AgentyInputError(f"AgentyJobEventTrigger has no parameter {', '.join(sorted(unknown))}.")
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.agent_id = parameters.optional(parameters.agent_id, agent_id)
        self.agenty_conn_id = parameters.agenty_conn_id(agenty_conn_id)
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)
        self.statuses = parameters.choices("statuses", statuses, STATUSES)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the trigger's class and arguments, from which Airflow makes it anew."""
        arguments: dict[str, Any] = {
            "agent_id": self.agent_id,
            "agenty_conn_id": self.agenty_conn_id,
            "poll_interval": self.poll_interval,
        }
        if self.statuses != COMPLETED:
            # The default is left out: Airflow replaces a trigger whose arguments change, as on an upgrade.
            arguments["statuses"] = list(self.statuses)
        return "airflow_provider_agenty.triggers.agenty.AgentyJobEventTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each job that ends as asked, without end; used before Airflow 3.3, which has no shared streams."""
        listings = JobFeed.shared(self.agenty_conn_id, self.poll_interval).listings()
        async with contextlib.aclosing(listings), contextlib.aclosing(self._events(listings)) as events:
            async for event in events:
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Return what the triggers have in common that share a poll: connection and interval (Airflow 3.3)."""
        return "agenty-jobs", self.agenty_conn_id, self.poll_interval

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return what polls for all triggers of a shared stream, from the arguments of one of them (Airflow 3.3)."""
        return JobListProducer(kwargs["agenty_conn_id"], kwargs["poll_interval"])

    def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire for each job that ends as asked in the listings of the producer, without end (Airflow 3.3)."""
        return self._events(shared_stream)

    async def _events(self, listings: AsyncIterator[Listing]) -> AsyncGenerator[TriggerEvent, None]:
        # An asset may have several watchers, so the key says which one this is. Airflow sets the store from 3.3 on.
        key = f"agenty_jobs/{self.agenty_conn_id}/{self.agent_id or '*'}"
        if self.statuses != COMPLETED:
            key += f"/{'-'.join(self.statuses)}"
        state = WatcherState(self.agent_id, getattr(self, "asset_state_store", None), key, self.statuses)
        await state.load()
        fired_at = -math.inf
        with JobFeed.shared(self.agenty_conn_id, self.poll_interval).watched_by(state):
            async for listing in listings:
                ended = state.take(listing)
                for job in ended:
                    if job is ended[-1]:
                        await asyncio.sleep(max(fired_at + SECONDS_BEFORE_LAST_EVENT - time.monotonic(), 0))
                    fired_at = time.monotonic()
                    yield TriggerEvent({**job.to_dict(), "agenty_conn_id": self.agenty_conn_id})
                    # An event counts as taken when the next one is requested.
                    state.pass_on(job, listing)
