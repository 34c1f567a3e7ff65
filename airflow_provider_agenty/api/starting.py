"""
Starting a job once, although the API cannot be told that two requests are the same.

A start whose answer is lost may have made a job, and each page that it fetches costs credit. So the newest
job of the agent is remembered before the request; afterwards, a newer job that Agenty's own scheduler did not
start is the one that was asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_agenty.api.errors import (
    AmbiguousStartError,
    ApiError,
    UnavailableError,
    UnexpectedAnswerError,
)
from airflow_provider_agenty.api.jobs import Job
from airflow_provider_agenty.api.paging import read_job_page
from airflow_provider_agenty.api.transport import Transport

log = logging.getLogger(__name__)

LOOKED_AT = 100
"""How many of the agent's jobs are asked for at once when a start is looked for."""

NO_JOB = 0
"""Stands for "the agent has no job yet": ids are counted from 1."""


@dataclass(frozen=True)
class StartPolicy:
    """
    How thoroughly a start with an unknown outcome is looked into.

    :param attempts: How often the start is sent at most, where it is known not to have arrived.
    :param looks: How often the list of jobs is looked at before a start counts as not arrived.
    :param first_wait: Seconds between the first two looks; it doubles with each further one.
    """

    attempts: int = 3
    looks: int = 4
    first_wait: float = 1.0


POLICY = StartPolicy()


def newest_job(transport: Transport, agent_id: str) -> Job | None:
    """
    Return the agent's newest job, ``None`` if it has none (``GET /jobs?agent_id=&limit=1``).

    :param transport: Where to ask.
    :param agent_id: The agent.
    """
    page = read_job_page(transport, agent_id=agent_id, limit=1)
    return next(iter(page.jobs.values()), None)


def newest_job_id(transport: Transport, agent_id: str) -> int:
    """
    Return the id of the agent's newest job, :data:`NO_JOB` if it has none (``GET /jobs?agent_id=&limit=1``).

    :param transport: Where to ask.
    :param agent_id: The agent.
    """
    newest = newest_job(transport, agent_id)
    return newest.job_id if newest else NO_JOB


def find_started_job(transport: Transport, agent_id: str, *, newer_than: int) -> Job | None:
    """
    Return the one job that a start with an unknown outcome made; ``None`` if there is none (yet).

    :param transport: Where to ask.
    :param agent_id: The agent.
    :param newer_than: The id of the agent's newest job before the start.
    :raises AmbiguousStartError: if several jobs may be it.
    """
    jobs = _newest_jobs(transport, agent_id, is_older=lambda job: job.job_id <= newer_than)
    return _only_candidate(agent_id, [job for job in jobs if job.job_id > newer_than and not job.is_scheduled])


def _newest_jobs(transport: Transport, agent_id: str, *, is_older: Callable[[Job], bool]) -> list[Job]:
    """Return an agent's newest jobs, page by page until one holds a job that is too old to matter."""
    jobs: dict[int, Job] = {}
    offset = 0
    while True:
        page = read_job_page(transport, agent_id=agent_id, limit=LOOKED_AT, offset=offset)
        jobs |= page.jobs
        if page.next_offset is None or any(is_older(job) for job in page.jobs.values()):
            return list(jobs.values())
        offset = page.next_offset


def _only_candidate(agent_id: str, candidates: list[Job]) -> Job | None:
    if len(candidates) > 1:
        ids = tuple(sorted((job.job_id for job in candidates), reverse=True))
        raise AmbiguousStartError(
            f"Agent {agent_id} has {len(ids)} new jobs ({', '.join(map(str, ids))}), and which of them this start made "
            "can't be told, since its answer was lost. Nothing more was started. Look at them in Agenty, stop those "
            "that nobody wants, and run the task again.",
            agent_id=agent_id,
            candidates=ids,
        )
    if not candidates:
        return None
    log.warning(
        "Job %d of agent %s is taken for the one whose answer was lost. Had somebody else started it at that moment, "
        "it would be shared",
        candidates[0].job_id,
        agent_id,
    )
    return candidates[0]


def find_active_job(transport: Transport, agent_id: str, *, since: datetime) -> Job | None:
    """
    Return the one job of an agent that was made since some moment and still goes on; ``None`` if there is none.

    This is what can be known where no job id was remembered. Jobs of Agenty's own scheduler do not count.

    :param transport: Where to ask.
    :param agent_id: The agent.
    :param since: The moment.
    :raises AmbiguousStartError: if there are several.
    """
    jobs = _newest_jobs(transport, agent_id, is_older=lambda job: job.created_at is not None and job.created_at < since)
    return _only_candidate(
        agent_id,
        [
            job
            for job in jobs
            if job.is_active and not job.is_scheduled and job.created_at is not None and job.created_at >= since
        ],
    )


def start_job(
    transport: Transport,
    agent_id: str,
    *,
    newer_than: int,
    prepare: Callable[[], None] = lambda: None,
    policy: StartPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """
    Start a job of an agent, once (``POST /jobs/start``).

    :param transport: Where to ask.
    :param agent_id: The agent.
    :param newer_than: The id of the agent's newest job before the start, from :func:`newest_job_id`.
    :param prepare: Called right before the start is sent, and again before it is sent again. What it raises is raised,
        and nothing more is sent.
    :param policy: How thoroughly to look for a job whose answer was lost. Default: :data:`POLICY`.
    :param sleep: Waits so many seconds.
    :return: The job as Agenty answered, or the one found in its list where the answer was lost.
    :raises AmbiguousStartError: if the outcome can't be told.
    :raises ApiError: if Agenty refused the start; then nothing was started.
    """
    policy = policy or POLICY
    attempts_left = policy.attempts
    while True:
        attempts_left -= 1
        prepare()
        try:
            return _send_start(transport, agent_id)
        except UnavailableError as error:
            if not error.acted_on:
                raise
            lost = error
        log.warning("%s. Looking whether the job was started all the same", lost)
        patience = transport.settings.read_timeout if lost.waited_for_answer else 0.0
        job = look_for_started_job(
            transport, agent_id, newer_than=newer_than, patience=patience, policy=policy, sleep=sleep
        )
        if job is not None:
            return job
        if isinstance(lost, _AcceptedWithoutJobError):
            raise _unknown_outcome(agent_id, f"{lost}, and Agenty's list of jobs shows no new one")
        if not attempts_left:
            raise lost
        log.warning("Agent %s has no new job: the start did not arrive. Sending it again", agent_id)


class _AcceptedWithoutJobError(UnavailableError):
    """The start was answered with success or a redirect, and with no job: sending it again could start a second."""


def _send_start(transport: Transport, agent_id: str) -> Job:
    try:
        return transport.send("POST", "/jobs/start", {"agent_id": agent_id}).job()
    except UnexpectedAnswerError as error:
        raise _AcceptedWithoutJobError(str(error), kind="status", acted_on=True) from None


def look_for_started_job(
    transport: Transport,
    agent_id: str,
    *,
    newer_than: int,
    patience: float = 0.0,
    policy: StartPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Job | None:
    """
    Look for the job of a start with an unknown outcome until it is there, or has not come for long enough.

    :param transport: Where to ask.
    :param agent_id: The agent.
    :param newer_than: The id of the agent's newest job before the start.
    :param patience: Seconds for which the start may still be on its way.
    :param policy: How thoroughly to look. Default: :data:`POLICY`.
    :param sleep: Waits so many seconds.
    :return: The job; ``None`` if the start is taken not to have arrived.
    :raises AmbiguousStartError: if several jobs may be it, or the list of jobs can't be read.
    """
    policy = policy or POLICY
    wait, waited, looks, unknown = policy.first_wait, 0.0, 0, ""
    while True:
        try:
            job = find_started_job(transport, agent_id, newer_than=newer_than)
        except AmbiguousStartError:
            raise
        except ApiError as error:
            unknown = str(error)
            break
        looks += 1
        if job is not None or (looks >= policy.looks and waited >= patience):
            return job
        sleep(wait)
        waited += wait
        wait = min(wait * 2, 10.0)
    raise _unknown_outcome(
        agent_id, f"its answer was lost, and Agenty's list of jobs could not be read ({unknown})", may_clear_up=True
    )


def _unknown_outcome(agent_id: str, reason: str, *, may_clear_up: bool = False) -> AmbiguousStartError:
    return AmbiguousStartError(
        f"Whether the start of agent {agent_id} made a job is not known: {reason}. Nothing more was started. Look in "
        "Agenty whether the agent has a new job before you run the task again.",
        agent_id=agent_id,
        may_clear_up=may_clear_up,
    )
