"""
How a job is waited for: what each answer means, and what becomes of it in the end.

The same code decides for a loop in a worker, for a sensor's pokes and for a trigger; only who asks Agenty, and who
sleeps in between, differs.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.deadline import seconds_left, time_limit
from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.validation import LONGEST_TEXT
from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyError,
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.log import Log

JOB_XCOM = "job"
"""The XCom that has the figures of a job that is over: status, pages, credits, times."""

STOP_SECONDS = 20.0
"""How long a stop may take where there is time: when waiting has timed out, and in the triggerer."""

SUCCESS = "success"
FAILED = "failed"
STOPPED = "stopped"
TIMEOUT = "timeout"
POLL_ERROR = "poll_error"
STATUSES = (SUCCESS, FAILED, STOPPED, TIMEOUT, POLL_ERROR)

FINAL_ERRORS = (AgentyAuthError, AgentyInputError, AgentyNotFoundError, AgentyRequestError)
"""What asking again will not change."""

PROGRESS_SECONDS = 300.0
"""How long a job may go on without a line in the log."""

PROGRESS_STEP = 0.1
"""The share of a job's pages after which there is a line in the log."""

LEAST_PROGRESS_SECONDS = 30.0
"""How long a job that stays in its state goes on without one at least, however fast its pages are done."""


ENTRIES_AT_ONCE = 2500
"""How many entries of a job's log are copied at most between two polls."""

SECONDS_BETWEEN_TURNS = 1.0
"""How long copying rests after so many entries, once the job is over and the rest of its log is copied."""

REST_OF_LOG_SECONDS = 600.0
"""How long the rest of a job's log may be copied once the job is over, if the deadline of the wait allows it."""

LEAST_REST_OF_LOG_SECONDS = 5.0
"""How long a trigger may copy it even if the deadline does not."""


@dataclass(frozen=True)
class Tolerance:
    """
    How long a job may be out of sight.

    Waiting ends with an error only when both figures are exceeded; one good answer sets both back.

    :param polls: How many polls in a row may fail.
    :param seconds: How long they may have failed.
    """

    polls: int = 10
    seconds: float = 1800.0


TOLERANCE = Tolerance()


@dataclass(frozen=True)
class Outcome:
    """
    How waiting for a job ended.

    :param status: ``success``, ``failed``, ``stopped``, ``timeout``, or ``poll_error``: sight of the job was lost,
        which says nothing about the job.
    :param job_id: The job.
    :param message: A sentence for people.
    :param job: The job as it was last seen; ``None`` if it never was.
    :param error: The name of the error class, for ``poll_error``.
    :param log_offset: How many lines of the job's log a trigger has copied.
    """

    status: str
    job_id: int
    message: str
    job: Job | None = None
    error: str | None = None
    log_offset: int = 0

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
        }

    @classmethod
    def from_event(cls, event: Any) -> Outcome:
        """
        Read the payload of a trigger's event back.

        :param event: What the trigger sent.
        :raises AgentyError: if it is not what a trigger of this provider sends. It crossed processes, and
            perhaps versions: nothing in it is taken for success by default.
        """
        if isinstance(event, Mapping) and event.get("status") in STATUSES:
            try:
                job = Job.from_answer(event["job"]) if event.get("job") else None
                outcome = cls(
                    event["status"],
                    int(event["job_id"]),
                    str(event["message"]),
                    job,
                    event.get("error"),
                    # Triggers of the first releases did not say it.
                    int(event.get("log_offset") or 0),
                )
            except (AgentyError, KeyError, TypeError, ValueError):
                outcome = None
            if outcome is not None and (outcome.job is not None or outcome.status in {TIMEOUT, POLL_ERROR}):
                return outcome
        raise AgentyError(
            f"The trigger sent an event that is not understood: {str(event)[:500]!r}. The job may still be running: "
            "look at it in Agenty. Triggerer and workers should have the same version of airflow-provider-agenty."
        )


class JobWatch:
    """
    Watches one job: is told each answer, says when waiting is over.

    :param job_id: The job.
    :param deadline: When to give up, in seconds since the epoch; ``None``: never.
    :param max_failed_ratio: The share of failed pages above which a completed job counts as failed; ``None``: any.
    :param log: Where progress is told.
    """

    def __init__(
        self,
        job_id: int,
        *,
        deadline: float | None = None,
        max_failed_ratio: float | None = None,
        log: Log,
    ) -> None:
        self._job_id = job_id
        self._deadline = deadline
        self._max_failed_ratio = max_failed_ratio
        self._log = log
        self._job: Job | None = None
        self._told: Job | None = None
        self._told_at = 0.0
        self._failed_polls = 0
        self._failing_since = 0.0

    def see(self, job: Job) -> Outcome | None:
        """
        Take in an answer.

        :param job: The job as Agenty described it.
        :return: How waiting ended; ``None`` if it goes on.
        """
        self._failed_polls = 0
        self._tell(job)
        self._job = job
        return judge(job, max_failed_ratio=self._max_failed_ratio) or self.check_deadline()

    def miss(self, error: AgentyError) -> Outcome | None:
        """
        Take in that there was no answer.

        :param error: Why not.
        :return: How waiting ended; ``None`` if it goes on.
        """
        if isinstance(error, FINAL_ERRORS):
            return self._lose_sight(error, f"Waiting for job {self._job_id} ended: {error}")
        if not self._failed_polls:
            self._failing_since = time.time()
        self._failed_polls += 1
        late = self.check_deadline()
        if late is not None:
            return late
        lasted = time.time() - self._failing_since
        if self._failed_polls > TOLERANCE.polls and lasted >= TOLERANCE.seconds:
            return self._lose_sight(
                error,
                f"Job {self._job_id} could not be asked for {lasted / 60:.0f} minutes ({self._failed_polls} polls in a "
                f"row failed), so whether it still runs is not known. The last error: {error}",
            )
        self._log.warning("Job %d could not be asked, trying again: %s", self._job_id, error)
        return None

    @property
    def job_id(self) -> int:
        """The job."""
        return self._job_id

    @property
    def seconds_left(self) -> float:
        """How long until the deadline, at least 0; infinite if there is none."""
        return math.inf if self._deadline is None else max(self._deadline - time.time(), 0.0)

    def seconds_to_sleep(self, poll_interval: float) -> float:
        """
        Return how long to wait before the next poll: about the interval, and not beyond the deadline.

        :param poll_interval: Seconds between two polls.
        """
        return min(jittered(poll_interval), self.seconds_left)

    def check_deadline(self) -> Outcome | None:
        """Return the outcome if the time is up, ``None`` if not."""
        if self.seconds_left:
            return None
        state = f"it is {self._job.describe()}" if self._job else "it was never seen"
        return Outcome(TIMEOUT, self._job_id, f"Job {self._job_id} is not done in time: {state}.", self._job)

    def _lose_sight(self, error: AgentyError, message: str) -> Outcome:
        return Outcome(POLL_ERROR, self._job_id, message, self._job, type(error).__name__)

    def _tell(self, job: Job) -> None:
        if self._is_news(job):
            self._log.info("Job %d is %s", job.job_id, job.describe())
            self._told, self._told_at = job, time.time()
        else:
            # Put into words only if somebody reads it: that is a line for each poll of each job.
            self._log.debug("Job %d is %s", job.job_id, job)
        if not job.is_known and (self._job is None or self._job.status != job.status):
            self._log.warning(
                "Job %d is in a state that this version does not know: %r. Waiting goes on",
                job.job_id,
                job.status,
            )

    def _is_news(self, job: Job) -> bool:
        if self._told is None or self._told.status != job.status:
            return True
        silent = time.time() - self._told_at
        if silent < LEAST_PROGRESS_SECONDS:
            return False
        has_come_far = round((job.progress or 0.0) - (self._told.progress or 0.0), 6) >= PROGRESS_STEP
        return has_come_far or silent >= PROGRESS_SECONDS


def jittered(seconds: float) -> float:
    """
    Return about so many seconds, and not more, so that those who started together do not stay together.

    :param seconds: The seconds.
    """
    return seconds * random.uniform(0.9, 1.0)  # noqa: S311 - not for secrets


def judge(job: Job, *, max_failed_ratio: float | None = None) -> Outcome | None:
    """
    Say what a job's state means.

    :param job: The job.
    :param max_failed_ratio: The share of failed pages above which a completed job counts as failed; ``None``: any.
    :return: The outcome; ``None`` while the job is not over.
    """
    if not job.is_terminal:
        return None
    if job.is_stopped:
        return Outcome(STOPPED, job.job_id, f"Job {job.job_id} was stopped by somebody in Agenty or by its API.", job)
    if not job.is_successful:
        reason = job.error or "Agenty names no reason; see the log of the job"
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
    ask: Callable[[], Job],
    watch: JobWatch,
    *,
    poll_interval: float,
    between: Callable[[Job], None] = lambda _job: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """
    Ask until waiting is over. Neither a request nor the copy of the log goes on beyond the watch's deadline.

    :param ask: Asks Agenty for the job.
    :param watch: Decides.
    :param poll_interval: Seconds between two polls.
    :param between: Called with each answer, before it is judged.
    :param sleep: Waits so many seconds.
    """
    while True:
        with time_limit(watch.seconds_left):
            try:
                job = ask()
            except AgentyError as error:
                outcome = watch.miss(error)
            else:
                between(job)
                outcome = watch.see(job)
        if outcome is not None:
            return outcome
        sleep(watch.seconds_to_sleep(poll_interval))


def conclude(outcome: Outcome, *, log_entries: Callable[[], list[LogEntry]]) -> Job:
    """
    Return the job of a successful outcome, raise what any other means.

    :param outcome: The outcome.
    :param log_entries: Fetches the last entries of the job's log.
    :raises AgentyJobFailedError: if the job failed.
    :raises AgentyJobStoppedError: if it was stopped.
    :raises AgentyTimeoutError: if it was not done in time.
    :raises AgentyError: if sight of it was lost: :class:`AgentyAuthError`, :class:`AgentyNotFoundError`,
        :class:`AgentyRequestError` or :class:`AgentyUnavailableError`, as the last answer deserves.
    """
    job = outcome.job
    if outcome.status == TIMEOUT:
        raise AgentyTimeoutError(outcome.message, job=job)
    if outcome.status == POLL_ERROR or job is None:
        lost = {error.__name__: error for error in FINAL_ERRORS}.get(outcome.error or "", AgentyUnavailableError)
        raise lost(outcome.message)
    if outcome.status == STOPPED:
        raise AgentyJobStoppedError(outcome.message, job=job)
    if outcome.status == FAILED:
        raise AgentyJobFailedError(outcome.message, job=job, log_entries=log_entries())
    return job


_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
}


def copy_entry(entry: LogEntry, log: Log) -> None:
    """
    Write an entry of a job's log into another log, at its level.

    :param entry: The entry.
    :param log: The other log.
    """
    # Each line has the mark: one of an entry could look like another task's, or like Airflow's own.
    message = entry.message.replace("\n", "\n[Agenty]   ")
    log.log(_LEVELS.get(entry.level, logging.INFO), "[Agenty] %s %s", entry.moment, message)


class LogCopy:
    """
    Copies a job's log into another one bit by bit, each entry once.

    :param iter_logs: Yields the entries of a job's log from an offset on, as :meth:`AgentyHook.iter_logs` does.
    :param job_id: The job.
    :param log: The other log.
    :param offset: How many lines were copied before. Default 0.
    :param keep: Is told how many lines are copied, each time there are more.
    """

    def __init__(
        self,
        iter_logs: Callable[..., Iterator[LogEntry]],
        job_id: int,
        log: Log,
        *,
        offset: int = 0,
        keep: Callable[[int], None] = lambda _offset: None,
    ) -> None:
        self._iter_logs = iter_logs
        self._job_id = job_id
        self._log = log
        self._keep = keep
        self._began: tuple[Any, int] = (None, offset)
        self.offset = offset

    def follow(self, job: Job) -> None:
        """
        Copy what is new; of a job that is over all that is left, for ten minutes at most.

        :param job: The job as it is now.
        """
        with time_limit(REST_OF_LOG_SECONDS if job.is_terminal else math.inf):
            while self.catch_up() and job.is_terminal:
                if not seconds_left():
                    self.tell_of_rest()
                    return
                time.sleep(SECONDS_BETWEEN_TURNS)

    def tell_of_rest(self) -> None:
        """Tell that copying has ended although there may be more."""
        self._log.warning("The log of job %d goes on in Agenty: it was copied up to line %d", self._job_id, self.offset)

    def catch_up(self) -> bool:
        """
        Copy what is new, at most :data:`ENTRIES_AT_ONCE` entries; what can't be read now comes the next time.

        :return: Whether there may be more.
        """
        before, copied = self.offset, 0
        try:
            for entry in itertools.islice(self._new_entries(), ENTRIES_AT_ONCE):
                copy_entry(entry, self._log)
                self.offset = entry.next_offset
                copied += 1
        except AgentyError as error:
            self._log.warning("The log of job %d could not be read, trying again later: %s", self._job_id, error)
            copied = 0
        if self.offset > before:
            self._keep(self.offset)
        return copied == ENTRIES_AT_ONCE

    def _new_entries(self) -> Iterator[LogEntry]:
        entries = self._iter_logs(self._job_id, offset=self.offset)
        first = next(entries, None)
        # From a server that skips no lines, the same ones would come for ever.
        begins = None if first is None or first.timestamp is None else (first.timestamp, first.message)
        if first is None or (begins and begins == self._began[0] and self.offset > self._began[1]):
            return
        self._began = begins, self.offset
        yield first
        yield from entries
