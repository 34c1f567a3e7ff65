"""
Decides what each answer means for a wait.

Worker, sensor and trigger all decide by :class:`JobWatch`. They differ in who asks Agenty, and who sleeps in between.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_agenty.api.deadline import time_limit
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyError
from airflow_provider_agenty.log import Log
from airflow_provider_agenty.waiting.changes import ChangeWatch
from airflow_provider_agenty.waiting.outcome import (
    BUDGET,
    FAILED,
    FINAL_ERRORS,
    POLL_ERROR,
    STOPPED,
    SUCCESS,
    TIMEOUT,
    Outcome,
)

if TYPE_CHECKING:
    from airflow_provider_agenty.hooks.agenty import AgentyHook
    from airflow_provider_agenty.waiting.task_state import ChangeMemory

STOP_SECONDS = 20.0
"""Seconds that a stop may take, unless its caller has less time."""

ATTEMPTS_TO_STOP_SPENDING = 3

SECONDS_BETWEEN_STOPS = 1.0

LAST_POLL_SECONDS = 5.0
"""Seconds that a poll has at least, so that a job which ended before the deadline is seen to have ended."""

MAX_FAILED_POLLS = 10
"""Polls in a row that may fail. Waiting ends when both limits are exceeded; one good answer resets both."""

MAX_FAILING_SECONDS = 1800.0
"""Seconds for which polls may fail."""

MAX_SECONDS_BETWEEN_PROGRESS_LINES = 300.0

MIN_SECONDS_BETWEEN_PROGRESS_LINES = 30.0
"""Minimum seconds between two progress lines within one state."""

PROGRESS_STEP = 0.1
"""The share of a job's pages after which there is a progress line."""


class JobWatch:
    """
    Takes each answer about one job, and says when waiting is over.

    :param deadline: When to give up, in seconds since the epoch; ``None``: never.
    :param max_failed_ratio: The share of failed pages above which a completed job counts as failed; ``None``: any.
    :param max_credits: The page credits above which waiting ends; ``None``: any.
    :param stall_timeout: Seconds for which an active job may stay as it is; ``None``: for ever.
    :param queue_timeout: Seconds for which a job may wait for a worker of Agenty; ``None``: for ever.
    :param memory: Keeps what was seen of the job, where each poll is a process of its own.
    """

    def __init__(
        self,
        job_id: int,
        *,
        deadline: float | None = None,
        max_failed_ratio: float | None = None,
        max_credits: float | None = None,
        stall_timeout: float | None = None,
        queue_timeout: float | None = None,
        poll_interval: float = 0.0,
        memory: ChangeMemory | None = None,
        log: Log,
    ) -> None:
        self.job_id = job_id
        self._deadline = deadline
        self._max_failed_ratio = max_failed_ratio
        self._max_credits = max_credits
        self._changes = ChangeWatch(stall_timeout=stall_timeout, queue_timeout=queue_timeout, memory=memory)
        self._log = log
        if stall_timeout is not None and stall_timeout < poll_interval:
            log.warning(
                "stall_timeout=%.16g is shorter than the %.16g seconds between two polls: a slow job may count as "
                "stalled. Set a longer stall_timeout or a shorter interval",
                stall_timeout,
                poll_interval,
            )
        self._job: Job | None = None
        self._logged: Job | None = None
        self._logged_at = 0.0
        self._failed_polls = 0
        self._failing_since = 0.0

    def take(self, answer: Job | AgentyError, *, now: float | None = None) -> Outcome | None:
        """Take the job, or why there was no answer; return how waiting ended, ``None`` if it goes on."""
        now = time.time() if now is None else now
        if isinstance(answer, AgentyError):
            return self._take_error(answer, now)
        self._failed_polls = 0
        self._log_progress(answer, now)
        self._job = answer
        return self._decide(answer, now)

    def _decide(self, job: Job, now: float) -> Outcome | None:
        """Decide by an answer and the time, in every mode; what comes first wins."""
        return (
            judge(job, max_failed_ratio=self._max_failed_ratio, max_credits=self._max_credits)
            or self.check_deadline(now)
            or self._changes.check(job, now)
        )

    def _take_error(self, error: AgentyError, now: float) -> Outcome | None:
        if isinstance(error, FINAL_ERRORS):
            return self._poll_error(error, f"Waiting for job {self.job_id} ended: {error}")
        if not self._failed_polls:
            self._failing_since = now
        self._failed_polls += 1
        late = self.check_deadline(now)
        if late is not None:
            return late
        seconds = now - self._failing_since
        if self._failed_polls > MAX_FAILED_POLLS and seconds >= MAX_FAILING_SECONDS:
            return self._poll_error(
                error,
                f"Job {self.job_id} could not be polled for {seconds / 60:.0f} minutes ({self._failed_polls} polls in "
                f"a row failed), so it is not known whether it still runs. The last error: {error}",
            )
        self._log.warning("Job %d could not be polled, trying again: %s", self.job_id, error)
        return None

    def _poll_error(self, error: AgentyError, message: str) -> Outcome:
        return Outcome(POLL_ERROR, self.job_id, message, self._job, type(error).__name__)

    @property
    def has_seen_the_end(self) -> bool:
        """Whether the last answer said that the job is over."""
        return self._job is not None and self._job.is_terminal

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, at least 0; infinite if there is none."""
        return math.inf if self._deadline is None else max(self._deadline - time.time(), 0.0)

    def check_deadline(self, now: float) -> Outcome | None:
        """Return the outcome if the time is up, ``None`` if not."""
        return None if self._deadline is None or now < self._deadline else self.late_outcome()

    def late_outcome(self) -> Outcome:
        """Return the outcome that the time is up."""
        state = f"it is {self._job.describe()}" if self._job else "no poll was answered"
        return Outcome(TIMEOUT, self.job_id, f"Job {self.job_id} is not done in time: {state}.", self._job)

    def _log_progress(self, job: Job, now: float) -> None:
        if self._is_progress(job, now):
            self._log.info("Job %d is %s", job.job_id, job.describe(max_credits=self._max_credits))
            self._logged, self._logged_at = job, now
        else:
            # Not described: nobody may read it, and there is one for each poll of each job.
            self._log.debug("Job %d is %s", job.job_id, job)
        if not job.is_known and (self._job is None or self._job.status != job.status):
            self._log.warning(
                "Job %d is in the state %r, which this version does not know. Waiting goes on", job.job_id, job.status
            )

    def _is_progress(self, job: Job, now: float) -> bool:
        if self._logged is None or self._logged.status != job.status:
            return True
        seconds = now - self._logged_at
        if seconds < MIN_SECONDS_BETWEEN_PROGRESS_LINES:
            return False
        progressed = round((job.progress or 0.0) - (self._logged.progress or 0.0), 6)
        return progressed >= PROGRESS_STEP or seconds >= MAX_SECONDS_BETWEEN_PROGRESS_LINES


def judge(job: Job, *, max_failed_ratio: float | None = None, max_credits: float | None = None) -> Outcome | None:
    """
    Return the outcome that a job's state and figures mean; ``None`` while waiting goes on.

    The budget comes first: another process may see the job that was stopped for it as stopped.
    """
    if max_credits is not None and (job.pages_credit or 0) > max_credits:
        message = (
            f"Job {job.job_id} has cost {job.pages_credit} credits, more than max_credits={max_credits:.16g} allows."
        )
        return Outcome(BUDGET, job.job_id, message, job, max_credits=max_credits)
    if not job.is_terminal:
        return None
    if job.is_stopped:
        return Outcome(STOPPED, job.job_id, f"Job {job.job_id} was stopped in Agenty or through its API.", job)
    if not job.is_successful:
        reason = job.error or "Agenty gives no reason. See the log of the job."
        return Outcome(FAILED, job.job_id, f"Job {job.job_id} was {job.status}: {reason}", job)
    if max_failed_ratio is not None and job.failed_ratio > max_failed_ratio:
        return Outcome(
            FAILED,
            job.job_id,
            f"Job {job.job_id} completed, but {job.pages_failed} of its pages failed ({job.failed_ratio:.0%}), more "
            f"than max_failed_ratio={max_failed_ratio:g} allows.",
            job,
        )
    return Outcome(SUCCESS, job.job_id, f"Job {job.job_id} is {job.describe()}", job)


def wait(
    get_job: Callable[[], Job],
    watch: JobWatch,
    *,
    poll_interval: float,
    before_decision: Callable[[Job], None] = lambda _job: None,
) -> Outcome:
    """Poll until waiting is over. The last poll is at the watch's deadline, and has a few seconds."""
    while True:
        with time_limit(max(watch.seconds_left, LAST_POLL_SECONDS)):
            try:
                job = get_job()
            except AgentyError as error:
                outcome = watch.take(error)
            else:
                before_decision(job)
                outcome = watch.take(job)
        if outcome is not None:
            return outcome
        time.sleep(min(jittered(poll_interval), watch.seconds_left))


def jittered(seconds: float) -> float:
    """Return up to a tenth less, so that those who started together do not stay together."""
    return seconds * random.uniform(0.9, 1.0)  # noqa: S311 - not for secrets


def stop_spending(hook: AgentyHook, outcome: Outcome, log: Log) -> Outcome:
    """
    Stop a job that is over its budget, unless that was done; return the outcome with the job as it is then.

    A stop that fails is repeated after another poll: a job whose stop was merely not answered gets no other one.
    """
    if outcome.status != BUDGET or outcome.job is None:
        return outcome
    job = outcome.job
    for attempt in range(ATTEMPTS_TO_STOP_SPENDING):
        if not job.may_go_on:
            break
        if attempt:
            time.sleep(SECONDS_BETWEEN_STOPS)
            job = _poll_again(hook, job)
        if job.may_go_on:
            answer = stop_job(hook, job.job_id, log)
            if answer is not None:
                # Agenty may still say that it runs. Nobody else is to stop it again.
                job = answer if not answer.may_go_on else dataclasses.replace(answer, status="stopping")
    pages_credit = max(outcome.job.pages_credit or 0, job.pages_credit or 0)
    return dataclasses.replace(outcome, job=dataclasses.replace(job, pages_credit=pages_credit))


def _poll_again(hook: AgentyHook, job: Job) -> Job:
    try:
        with hook.without_retries() as once, time_limit(STOP_SECONDS):
            return once.get_job(job.job_id)
    except AgentyError:
        return job


def stop_job(hook: AgentyHook, job_id: int, log: Log, *, seconds: float | None = None) -> Job | None:
    """Send one stop, log what came of it, and return the job as Agenty answered; ``None`` if that failed."""
    try:
        with hook.without_retries() as once, time_limit(STOP_SECONDS if seconds is None else seconds):
            job = once.stop_job(job_id)
    except AgentyError as error:
        log.warning("Job %d could not be stopped, it may go on and cost credits: %s", job_id, error)
        return None
    log.info("Asked Agenty to stop job %d: it is %s", job_id, job.status)
    return job
