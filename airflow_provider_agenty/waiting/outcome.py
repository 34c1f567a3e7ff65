"""How waiting for a job ended: as the event of a trigger, and as the error of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.validation import LONGEST_TEXT
from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyBudgetError,
    AgentyError,
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyStalledError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)

JOB_XCOM = "job"
"""The XCom with the figures of a job that is over: status, pages, credits, times."""

SUCCESS = "success"
FAILED = "failed"
STOPPED = "stopped"
TIMEOUT = "timeout"
BUDGET = "budget"
STALLED = "stalled"
POLL_ERROR = "poll_error"
STATUSES = (SUCCESS, FAILED, STOPPED, TIMEOUT, BUDGET, STALLED, POLL_ERROR)

FINAL_ERRORS = (AgentyAuthError, AgentyInputError, AgentyNotFoundError, AgentyRequestError)
"""Errors of a poll that another poll will not change."""


@dataclass(frozen=True)
class Outcome:
    """
    How waiting for a job ended.

    :param status: ``success``, ``failed``, ``stopped``, ``timeout``, ``budget`` or ``stalled``; ``poll_error`` if
        Agenty could not be asked, which says nothing about the job.
    :param message: A sentence for people.
    :param job: The job by the last answer; ``None`` if there was none.
    :param error: The name of the error class, for ``poll_error``.
    :param log_offset: The number of lines of the job's log that a trigger has copied.
    :param max_credits: The page credits that the job was allowed to cost, for ``budget``.
    """

    status: str
    job_id: int
    message: str
    job: Job | None = None
    error: str | None = None
    log_offset: int = 0
    max_credits: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", self.message[:LONGEST_TEXT])

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON primitives: the payload of a trigger's event."""
        return {
            "status": self.status,
            "job_id": self.job_id,
            "agent_id": self.job.agent_id if self.job else None,
            "message": self.message,
            "job": self.job.to_dict() if self.job else None,
            "error": self.error,
            "log_offset": self.log_offset,
            "max_credits": self.max_credits,
        }

    @classmethod
    def from_event(cls, event: Any) -> Outcome:
        """
        Read the payload of a trigger's event.

        :raises AgentyError: if no trigger of this provider sends such an event. The event crossed processes, and
            perhaps versions, so nothing in it counts as success by default.
        """
        try:
            outcome = cls(
                event["status"],
                int(event["job_id"]),
                str(event["message"]),
                Job.from_answer(event["job"]) if event.get("job") else None,
                event.get("error"),
                # Triggers of the first releases did not send it.
                int(event.get("log_offset") or 0),
                float(event["max_credits"]) if event.get("max_credits") is not None else None,
            )
        except (AgentyError, AttributeError, KeyError, TypeError, ValueError):
            outcome = None
        if outcome is not None and outcome.status in (STATUSES if outcome.job else (TIMEOUT, POLL_ERROR)):
            return outcome
        raise AgentyError(
            f"The trigger sent an event that this version can't read: {str(event)[:500]!r}. The job may still run: "
            "look at it in Agenty. Install one version of airflow-provider-agenty in the triggerer and the workers."
        )


def conclude(outcome: Outcome, *, log_entries: Callable[[], list[LogEntry]]) -> Job:
    """
    Return the job of a successful outcome, raise the error of any other.

    :param log_entries: Fetches the last entries of the job's log.
    """
    job = outcome.job
    if outcome.status == TIMEOUT:
        raise AgentyTimeoutError(outcome.message, job=job)
    if outcome.status == POLL_ERROR or job is None:
        error = {error.__name__: error for error in FINAL_ERRORS}.get(outcome.error or "", AgentyUnavailableError)
        raise error(outcome.message)
    if outcome.status == STALLED:
        raise AgentyStalledError(outcome.message, job=job)
    if outcome.status == BUDGET:
        end = "It could not be stopped: stop it in Agenty." if job.may_go_on else f"It is {job.status}."
        raise AgentyBudgetError(
            f"{outcome.message} {end}",
            credits=job.pages_credit or 0,
            max_credits=outcome.max_credits or 0,
            job=job,
        )
    if outcome.status == STOPPED:
        raise AgentyJobStoppedError(outcome.message, job=job)
    if outcome.status == FAILED:
        raise AgentyJobFailedError(outcome.message, job=job, log_entries=log_entries())
    return job
