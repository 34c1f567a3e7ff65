"""Triggers: waiting for jobs in the triggerer, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_agenty import parameters
from airflow_provider_agenty.connection_form import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.triggers.job_events import AgentyJobEventTrigger
from airflow_provider_agenty.waiting.job_watch import JobWatch, stop_job
from airflow_provider_agenty.waiting.log_copy import TriggerLogCopy
from airflow_provider_agenty.waiting.outcome import JOB_XCOM, POLL_ERROR, SUCCESS, Outcome
from airflow_provider_agenty.waiting.shared_poller import JobPoller

__all__ = ["AgentyJobEventTrigger", "AgentyJobTrigger"]


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
        self.job_id = job_id if parameters.is_template(job_id) else parameters.job_id(job_id)
        self.agenty_conn_id = (
            agenty_conn_id if parameters.is_template(agenty_conn_id) else parameters.agenty_conn_id(agenty_conn_id)
        )
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)
        self.deadline = parameters.epoch_seconds("deadline", deadline)
        self.max_failed_ratio = parameters.share("max_failed_ratio", max_failed_ratio)
        self.cancel_on_kill = parameters.boolean("cancel_on_kill", cancel_on_kill)
        self.stream_logs = parameters.boolean("stream_logs", stream_logs)
        self.log_offset = parameters.whole_number("log_offset", log_offset)
        self.end_from_trigger = parameters.boolean("end_from_trigger", end_from_trigger)

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
        if self.stream_logs:
            copy = TriggerLogCopy(
                self.agenty_conn_id, self.job_id, self.log, offset=self.log_offset, task_instance=self.task_instance
            )
            waiting = copy.beside(waiting, watch, poll_interval=self.poll_interval)
        yield self._event(await waiting)

    def _event(self, outcome: Outcome) -> TriggerEvent:
        if not self.end_from_trigger or outcome.status != SUCCESS or outcome.job is None:
            return TriggerEvent(outcome.to_dict())
        job = outcome.job
        return TaskSuccessEvent(
            xcoms={"return_value": job.job_id, JOB_XCOM: job.to_dict(), **AgentyAgentLink.xcoms(job)}
        )

    async def on_kill(self) -> None:
        """Stop the job, once, when a user marks or clears the waiting task (Airflow 3.3 and later)."""
        if self.cancel_on_kill:
            await asyncio.to_thread(self._stop_job)

    def _stop_job(self) -> None:
        from airflow_provider_agenty.hooks.agenty import AgentyHook

        # Airflow gives a trigger 30 s to be killed.
        stop_job(AgentyHook(self.agenty_conn_id), self.job_id, self.log)
