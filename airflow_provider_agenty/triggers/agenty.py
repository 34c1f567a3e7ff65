"""Triggers: waiting for jobs in the triggerer, without a worker."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_agenty import parameters
from airflow_provider_agenty.api.deadline import time_limit
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.connection import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import AgentyError, AgentyInputError
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.templates import is_template
from airflow_provider_agenty.triggers.job_events import AgentyJobEventTrigger
from airflow_provider_agenty.waiting.asking import open_hook
from airflow_provider_agenty.waiting.job_watch import (
    JOB_XCOM,
    LEAST_REST_OF_LOG_SECONDS,
    POLL_ERROR,
    REST_OF_LOG_SECONDS,
    SECONDS_BETWEEN_TURNS,
    STOP_SECONDS,
    SUCCESS,
    JobWatch,
    LogCopy,
    Outcome,
    jittered,
)
from airflow_provider_agenty.waiting.log_offset import LogOffset
from airflow_provider_agenty.waiting.shared_poller import JobPoller

__all__ = ["AgentyJobEventTrigger", "AgentyJobTrigger"]

T = TypeVar("T")

_LOG_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="agenty-logs")
"""Logs are copied in threads of their own: a slow server must not keep busy those that other triggers need."""


LOG_SECONDS = 60.0
"""How long one of these threads may be busy with one log at a time."""


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
    :param log_offset: How many lines of the job's log were copied before. Default 0.
    :param end_from_trigger: Whether the task ends with the trigger if the job succeeded, without a worker. Default
        false.
    """

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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Where the task starts in the triggerer, these two may be templates, which Airflow renders before it runs this.
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
        self._copy: LogCopy | None = None

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
        watch = JobWatch(self.job_id, deadline=self.deadline, max_failed_ratio=self.max_failed_ratio, log=self.log)
        waiting = JobPoller.shared(self.agenty_conn_id, self.poll_interval).wait(watch)
        outcome = await (self._copying_the_log(waiting, watch) if self.stream_logs else waiting)
        yield self._event(outcome)

    def _event(self, outcome: Outcome) -> TriggerEvent:
        if not self.end_from_trigger or outcome.status != SUCCESS or outcome.job is None:
            return TriggerEvent(outcome.to_dict())
        job = outcome.job
        return TaskSuccessEvent(
            xcoms={"return_value": job.job_id, JOB_XCOM: job.to_dict(), **AgentyAgentLink.xcoms(job)}
        )

    async def _copying_the_log(self, waiting: Coroutine[Any, Any, Outcome], watch: JobWatch) -> Outcome:
        """Copy the job's log beside the wait, and what is left of it after the job's end, as long as there is time."""
        over = asyncio.Event()
        copying = asyncio.create_task(self._keep_copying(over))
        try:
            outcome = await waiting
            over.set()
            if outcome.job is not None and outcome.job.is_terminal:
                seconds = min(REST_OF_LOG_SECONDS, max(watch.seconds_left, LEAST_REST_OF_LOG_SECONDS))
                await asyncio.wait([copying], timeout=seconds)
                if copying.done():
                    copying.result()
                elif self._copy is not None:
                    self._copy.tell_of_rest()
            return dataclasses.replace(outcome, log_offset=self._copy.offset if self._copy else self.log_offset)
        finally:
            copying.cancel()

    async def _keep_copying(self, over: asyncio.Event) -> None:
        """Copy lines until the job is over and all of them are copied."""
        kept = LogOffset(self.task_instance, self.job_id)
        self.log_offset = max(self.log_offset, await kept.read())
        with contextlib.ExitStack() as opened:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(jittered(self.poll_interval)):
                        await over.wait()
                if self._copy is None:
                    try:
                        hook = opened.enter_context(await open_hook(self.agenty_conn_id))
                    except Exception as error:
                        self.log.warning("The log of job %d can't be read now, trying again: %s", self.job_id, error)
                        continue
                    self._copy = LogCopy(hook.iter_logs, self.job_id, self.log, offset=self.log_offset)
                await self._catch_up(self._copy, kept, over)

    async def _catch_up(self, copy: LogCopy, kept: LogOffset, over: asyncio.Event) -> None:
        """Copy what is new; of a job that is over all that is left."""
        while True:
            if copy.offset > self.log_offset:
                # Only now, a turn later: lines that were just written are lost with a triggerer that is killed, and
                # are to come twice rather than not at all.
                await kept.keep(copy.offset)
            if not (await _in_log_thread(copy.catch_up) and over.is_set()):
                return
            await asyncio.sleep(SECONDS_BETWEEN_TURNS)

    async def on_kill(self) -> None:
        """Stop the job, once, when a user marks or clears the waiting task (Airflow 3.3 and later)."""
        if not self.cancel_on_kill:
            return
        try:
            job = await asyncio.to_thread(self._stop_job)
        except AgentyError as error:
            self.log.warning("Job %d could not be stopped, it may go on and cost credit: %s", self.job_id, error)
        else:
            self.log.info("Asked Agenty to stop job %d: it is %s", self.job_id, job.status)

    def _stop_job(self) -> Job:
        from airflow_provider_agenty.hooks.agenty import AgentyHook

        # Airflow gives a trigger 30 s to be killed.
        with AgentyHook(self.agenty_conn_id).without_retries() as hook, time_limit(STOP_SECONDS):
            return hook.stop_job(self.job_id)


async def _in_log_thread(call: Callable[[], T]) -> T:
    """Call something in the context of the trigger, by which its log lines find their task."""

    def limited() -> T:
        with time_limit(LOG_SECONDS):
            return call()

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_LOG_THREADS, contextvars.copy_context().run, limited)
