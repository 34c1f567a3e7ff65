"""
Starting a job once, although the API cannot be told that two requests are the same.

A start whose answer is lost may have made a job, and each page that it fetches costs credit. So the newest
job of the agent is remembered before the request; afterwards, a newer job that Agenty's own scheduler did not
start is the one that was asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.pages import JOB_PAGE, read_job_page
from airflow_provider_agenty.api.request import Transport
from airflow_provider_agenty.api.validation import read_date
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyAuthError,
    AgentyError,
    AgentyInputError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
    AgentyUnexpectedAnswerError,
)

log = logging.getLogger(__name__)

NEWEST_PAGE = 100
"""The number of jobs to ask for to find the newest one: enough to see in which order they come."""

MAX_PAGES = 20
"""The largest number of pages of the list that are read to find a start."""

CLOCK_ALLOWANCE = timedelta(seconds=2)
"""By how much the clocks of Airflow's own machines may differ: one noted when a run began, another one asks Agenty."""

MAX_CLOCK_DIFFERENCE = timedelta(days=1)
"""A ``Date`` that is further away than this does not tell the time."""

_JOBS_SHOWN = 20

NO_JOB = 0
"""Stands for "the agent has no job yet": ids are counted from 1."""


@dataclass(frozen=True)
class StartPolicy:
    """
    How thoroughly a start with an unknown outcome is looked into.

    :param attempts: The largest number of times that the start is sent, where it is known not to have arrived.
    :param lookups: The number of times that the list of jobs is read before a start counts as not arrived.
    :param first_wait: Seconds between the first two lookups; it doubles with each further one.
    """

    attempts: int = 3
    lookups: int = 4
    first_wait: float = 1.0


POLICY = StartPolicy()

BY_AN_EARLIER_TRY = "an earlier try was about to start it and ended before it knew the job"
ANSWER_LOST = "its answer was lost"
NO_JOB_IN_ANSWER = "its answer held no job"

WHAT_TO_DO = (
    "Nothing more was started. Look at the agent's jobs in Agenty and stop those that nobody wants. Then run the task "
    "again."
)


def newest_job(transport: Transport, agent_id: str) -> Job | None:
    """
    Return the agent's newest job, ``None`` if it has none (``GET /jobs?agent_id=``).

    :raises AgentyUnexpectedAnswerError: if the list of jobs does not tell.
    """
    try:
        jobs = _read_jobs(transport, agent_id, limit=NEWEST_PAGE, at_least=2, until=lambda _: True).jobs
    except _EndlessListError as error:
        raise AgentyUnexpectedAnswerError(
            f"The newest job of agent {agent_id} could not be found: {error}. Nothing was started. Look at the agent's "
            "jobs in Agenty."
        ) from None
    return jobs[max(jobs)] if jobs else None


def find_started_job(
    transport: Transport, agent_id: str, *, newer_than: int, reason: str = BY_AN_EARLIER_TRY
) -> Job | None:
    """
    Return the one job that a start with an unknown outcome made; ``None`` if there is none (yet).

    :param newer_than: The id of the agent's newest job before the start.
    :param reason: Why the outcome is unknown, for messages.
    :raises AgentyAmbiguousStartError: if several jobs may be it, or the list of jobs does not tell.
    """
    try:
        listed = _read_jobs(transport, agent_id, until=lambda listed: min(listed.jobs) <= newer_than)
    except _EndlessListError as error:
        raise _unknown_outcome(agent_id, f"{reason}, and {error}") from None
    candidates = [job for job in listed.jobs.values() if job.job_id > newer_than and _may_be_ours(job, agent_id)]
    if len(candidates) > 1:
        ids = _newest_first(candidates)
        raise AgentyAmbiguousStartError(
            f"Agent {agent_id} has {len(ids)} new jobs ({ids_in_words(ids)}), and it is not known which of them this "
            f"start made: {reason}. {WHAT_TO_DO}",
            agent_id=agent_id,
            candidates=ids,
        )
    if not candidates:
        return None
    log.warning(
        "Job %d of agent %s is taken as the one that was started: %s. If somebody else started it at that moment, both "
        "use it",
        candidates[0].job_id,
        agent_id,
        reason,
    )
    return candidates[0]


def recent_jobs(transport: Transport, agent_id: str, *, since: datetime | None = None) -> ListedJobs:
    """
    Return the newest jobs of an agent, whoever started them.

    :param since: As far back as this moment, by Airflow's clock. Default: 1,000 jobs.
    :raises AgentyAmbiguousStartError: if the list of jobs does not tell.
    """
    try:
        return _read_jobs(transport, agent_id, until=lambda listed: since is None or listed.reaches_back_to(since))
    except _EndlessListError as error:
        raise AgentyAmbiguousStartError(
            f"The jobs of agent {agent_id} could not be listed: {error}. {WHAT_TO_DO}", agent_id=agent_id
        ) from None


def _may_be_ours(job: Job, agent_id: str) -> bool:
    return not job.is_scheduled and job.agent_id in (None, agent_id)


def ids_in_words(job_ids: Sequence[int]) -> str:
    """Return the ids of jobs for a message, the first 20 of them."""
    shown = ", ".join(map(str, job_ids[:_JOBS_SHOWN]))
    return shown if len(job_ids) <= _JOBS_SHOWN else f"{shown} and {len(job_ids) - _JOBS_SHOWN} more"


def _newest_first(jobs: list[Job]) -> tuple[int, ...]:
    return tuple(sorted((job.job_id for job in jobs), reverse=True))


@dataclass
class ListedJobs:
    """
    An agent's list of jobs, as far as it was read.

    :param jobs: The jobs by their id, as they are listed.
    :param clock_ahead: The time by which Agenty's clock is ahead of this machine's, rather too little than too much.
    """

    jobs: dict[int, Job]
    clock_ahead: timedelta

    @property
    def is_newest_first(self) -> bool:
        """Whether the ids show that the newest come first. A single job has no order."""
        return len(self.jobs) > 1 and list(self.jobs) == sorted(self.jobs, reverse=True)

    @property
    def newest_first(self) -> list[Job]:
        """The jobs, the one with the highest id first."""
        return [self.jobs[job_id] for job_id in sorted(self.jobs, reverse=True)]

    @property
    def now(self) -> datetime:
        """The time by Agenty's clock."""
        return datetime.now(UTC) + self.clock_ahead

    def reaches_back_to(self, moment: datetime) -> bool:
        """
        Return whether a job in it was made before some moment.

        :param moment: The moment, by Airflow's clock.
        """
        return any(self._was_made_before(job, moment) for job in self.jobs.values())

    def made_since(self, moment: datetime) -> list[Job]:
        """
        Return the jobs that were made since some moment, newest first.

        :param moment: The moment, by Airflow's clock.
        """
        before = [job.job_id for job in self.jobs.values() if self._was_made_before(job, moment)]
        # The id tells where the job's time is missing.
        newest_before = max(before, default=NO_JOB)
        return [
            job
            for job in self.newest_first
            if job.job_id not in before and (job.created_at is not None or job.job_id > newest_before)
        ]

    def _was_made_before(self, job: Job, moment: datetime) -> bool:
        # Lists carry whole seconds.
        begins = (moment + self.clock_ahead - CLOCK_ALLOWANCE).replace(microsecond=0)
        return job.created_at is not None and job.created_at < begins


class _EndlessListError(Exception):
    """The list of jobs could not be read far enough; the text says why."""


def _read_jobs(
    transport: Transport,
    agent_id: str,
    *,
    until: Callable[[ListedJobs], bool],
    limit: int = JOB_PAGE,
    at_least: int = JOB_PAGE,
) -> ListedJobs:
    """
    Read an agent's list of jobs, page by page until what is further on can't matter.

    Agenty lists the newest first, but says so nowhere: a short list is read whole, and so is one in another order.

    :param until: Whether older jobs than those that were read do not matter.
    :param limit: The number of jobs to ask for at once.
    :param at_least: The number of jobs that show that the newest come first.
    :raises _EndlessListError: if the list goes on for too long, or ends too early.
    """
    listed = ListedJobs({}, timedelta(0))
    offset = pages = 0
    while True:
        page = read_job_page(transport, agent_id=agent_id, limit=limit, offset=offset)
        if not offset:
            listed.clock_ahead = _clock_ahead(page.date)
        pages += 1
        before = len(listed.jobs)
        for job_id, job in page.jobs.items():
            listed.jobs.setdefault(job_id, job)
        offset = page.end
        if offset == page.total or (offset > page.total and not page.jobs):
            return listed
        is_last = pages == MAX_PAGES or len(listed.jobs) == before
        if (is_last or len(listed.jobs) >= at_least) and listed.is_newest_first and until(listed):
            return listed
        if is_last:
            raise _EndlessListError(
                f"Agenty's list of its jobs could not be read to its end: Agenty counts {page.total} jobs, and sent "
                f"{len(listed.jobs)} in {pages} page{'' if pages == 1 else 's'}"
            )


def _clock_ahead(date: str | None) -> timedelta:
    """
    Return how far Agenty's clock is ahead of this machine's, by the ``Date`` of an answer that has just come.

    The header leaves out a part of a second, and the answer took some time to come. So the result is rather too
    little: a job that is a little older may count, but none is missed.
    """
    moment = read_date(date)
    ahead = timedelta(0) if moment is None else moment - datetime.now(UTC)
    return ahead if abs(ahead) < MAX_CLOCK_DIFFERENCE else timedelta(0)


def start_job(
    transport: Transport,
    agent_id: str,
    *,
    newer_than: int,
    prepare: Callable[[], None] = lambda: None,
) -> Job:
    """
    Start a job of an agent, once (``POST /jobs/start``).

    :param newer_than: The id of the agent's newest job before the start, as :func:`newest_job` tells it.
    :param prepare: Called right before the start is sent, and again before it is sent again. If it raises, nothing
        more is sent.
    :return: The job as Agenty answered, or the one found in its list where the answer was lost.
    :raises AgentyAmbiguousStartError: if the outcome can't be told.
    :raises AgentyError: if Agenty refused the start; then nothing was started.
    """
    attempts_left = POLICY.attempts
    lost: AgentyUnavailableError | None = None
    while True:
        attempts_left -= 1
        prepare()
        try:
            return _send_start(transport, agent_id)
        except AgentyUnavailableError as error:
            if not error.acted_on:
                # The one before it was not found, and may come all the same.
                error.acted_on = lost is not None
                raise
            lost = error
        log.warning("%s. Checking whether the job was started all the same", lost)
        patience = transport.settings.read_timeout if lost.waited_for_answer else 0.0
        was_answered = isinstance(lost, _AnsweredWithoutJobError)
        job = look_for_started_job(
            transport,
            agent_id,
            newer_than=newer_than,
            patience=patience,
            reason=NO_JOB_IN_ANSWER if was_answered else ANSWER_LOST,
        )
        if job is not None:
            return job
        if was_answered:
            raise _unknown_outcome(agent_id, f"{lost}, and Agenty's list of jobs shows no new one")
        if not attempts_left:
            raise lost
        log.warning("Agent %s has no new job, so the start did not arrive. Sending it again", agent_id)


class _AnsweredWithoutJobError(AgentyUnavailableError):
    """The start was answered, neither with a job nor with a refusal: sending it again could start a second."""


def _send_start(transport: Transport, agent_id: str) -> Job:
    try:
        return transport.send("POST", "/jobs/start", {"agent_id": agent_id}).job()
    except (AgentyInputError, AgentyAuthError, AgentyNotFoundError, AgentyRequestError, AgentyUnavailableError):
        raise
    except AgentyError as error:
        problem = str(error)
    except Exception as error:
        # The start is out by now. Its job has to be looked for, whatever it was that could not be read.
        problem = f"POST /jobs/start: the answer can't be read ({type(error).__name__})"
    raise _AnsweredWithoutJobError(problem, kind="status", acted_on=True)


def look_for_started_job(
    transport: Transport,
    agent_id: str,
    *,
    newer_than: int,
    patience: float = 0.0,
    reason: str = BY_AN_EARLIER_TRY,
) -> Job | None:
    """
    Look for the job of a start with an unknown outcome until it is there, or has not come for long enough.

    :param newer_than: The id of the agent's newest job before the start.
    :param patience: Seconds for which the start may still be on its way.
    :param reason: Why the outcome is unknown, for messages.
    :return: The job; ``None`` if the start is taken not to have arrived.
    :raises AgentyAmbiguousStartError: if several jobs may be it, or the list of jobs can't be read.
    """
    wait, waited, lookups, unknown = POLICY.first_wait, 0.0, 0, ""
    while True:
        try:
            job = find_started_job(transport, agent_id, newer_than=newer_than, reason=reason)
        except AgentyAmbiguousStartError:
            raise
        except AgentyError as error:
            unknown = str(error)
            break
        lookups += 1
        if job is not None or (lookups >= POLICY.lookups and waited >= patience):
            return job
        time.sleep(wait)
        waited += wait
        wait = min(wait * 2, 10.0)
    raise _unknown_outcome(
        agent_id, f"{reason}, and Agenty's list of jobs could not be read ({unknown})", may_clear_up=True
    )


def _unknown_outcome(agent_id: str, reason: str, *, may_clear_up: bool = False) -> AgentyAmbiguousStartError:
    return AgentyAmbiguousStartError(
        f"It is not known whether the start of agent {agent_id} made a job: {reason}. Nothing more was started. Before "
        "you run the task again, look in Agenty whether the agent has a new job.",
        agent_id=agent_id,
        may_clear_up=may_clear_up,
    )
