"""Whether a job goes on: it may stand still, or wait too long for a worker of Agenty."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.waiting.outcome import STALLED, Outcome

if TYPE_CHECKING:
    from airflow_provider_agenty.waiting.task_state import ChangeMemory

MAX_AGE = timedelta(days=365)
"""An older time is taken for none: .NET writes the year 1 for it."""


class ChangeWatch:
    """
    Takes each answer about one job, and says when it has not changed for too long.

    Agenty tells when a job was made and when it started, not when it last changed. So a wait that begins late, or anew
    after a restart, counts from these times only as long as nothing was scraped since.

    :param stall_timeout: Seconds for which an active job may stay as it is; ``None``: for ever.
    :param queue_timeout: Seconds for which it may wait for a worker; ``None``: for ever.
    :param memory: Keeps what was seen, where each poll is a process of its own.
    """

    def __init__(
        self, *, stall_timeout: float | None, queue_timeout: float | None, memory: ChangeMemory | None = None
    ) -> None:
        self._stall_timeout = stall_timeout
        self._queue_timeout = queue_timeout
        self._memory = memory
        self._first_seen: float | None = None
        self._figures: list[str | int | None] | None = None
        self._unchanged_since = 0.0
        if memory is not None:
            self._first_seen, self._figures, self._unchanged_since = memory.read()

    def check(self, job: Job, now: float) -> Outcome | None:
        """Return the outcome if the job has stood still or waited for too long, ``None`` if not."""
        if self._stall_timeout is None and self._queue_timeout is None:
            return None
        is_same = self._compare(job, now)
        if self._queue_timeout is not None and job.is_waiting:
            seconds = now - (_local_time(job.created_at, job, now) or self._first_seen or now)
            if seconds >= self._queue_timeout:
                return _stalled(job, f"has waited {seconds:.0f} s for a worker", "queue_timeout", self._queue_timeout)
        # One answer alone does not show that nothing changes.
        if self._stall_timeout is not None and job.is_active and is_same:
            seconds = now - self._unchanged_since
            if seconds >= self._stall_timeout:
                return _stalled(job, f"has not changed for {seconds:.0f} s", "stall_timeout", self._stall_timeout)
        return None

    def _compare(self, job: Job, now: float) -> bool:
        """Return whether the job is as it was; remember it if not."""
        figures = [job.status, job.pages_processed, job.pages_succeeded, job.pages_failed, job.pages_credit]
        if figures == self._figures:
            return True
        is_first = self._figures is None
        self._unchanged_since = (_last_known_change(job, now) if is_first else None) or now
        self._first_seen = self._first_seen or now
        self._figures = figures
        if self._memory is not None:
            self._memory.keep(self._first_seen, figures, self._unchanged_since)
        return False


def _last_known_change(job: Job, now: float) -> float | None:
    """Return since when a job has certainly not scraped anything; ``None`` if it has scraped something."""
    if job.pages_processed or job.pages_succeeded or job.pages_failed or job.pages_credit or job.status == "completing":
        return None
    return _local_time(job.created_at if job.is_waiting else job.started_at, job, now)


def _local_time(moment: datetime | None, job: Job, now: float) -> float | None:
    """Return a moment by Agenty's clock in seconds by this machine's clock, at most now."""
    if moment is None:
        return None
    age = (job.answered_at - moment).total_seconds() if job.answered_at else now - moment.timestamp()
    return now - max(age, 0.0) if age < MAX_AGE.total_seconds() else None


def _stalled(job: Job, what: str, name: str, seconds: float) -> Outcome:
    message = f"Job {job.job_id} {what}, longer than {name}={seconds:.16g} allows: it is {job.describe()}."
    return Outcome(STALLED, job.job_id, message, job)
