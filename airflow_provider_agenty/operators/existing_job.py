"""Decides which job of an agent a start task takes in place of starting one."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_agenty.airflow_compat import AirflowSkipException
from airflow_provider_agenty.api.start_job import ids_in_words
from airflow_provider_agenty.exceptions import (
    AgentyAlreadyRunningError,
    AgentyAmbiguousStartError,
    AgentyTimeoutError,
)
from airflow_provider_agenty.parameters import JOIN, SKIP, START, STOP
from airflow_provider_agenty.waiting.job_watch import judge
from airflow_provider_agenty.waiting.outcome import BUDGET, SUCCESS

if TYPE_CHECKING:
    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.api.start_job import ListedJobs
    from airflow_provider_agenty.hooks.agenty import AgentyHook

MAX_SECONDS_TO_STOP = 60.0
"""Seconds for which ``if_running="stop"`` waits for the jobs that it stopped."""

SECONDS_BETWEEN_POLLS = 2.0

log = logging.getLogger(__name__)


def find_job_of_run(
    hook: AgentyHook,
    agent_id: str,
    *,
    run_began: datetime,
    of_other_tasks: Collection[int],
    urls: Collection[str] | None,
    max_failed_ratio: float | None,
    max_credits: float | None = None,
) -> Job | None:
    """
    Return the job that an earlier try of this run started, where none was remembered; ``None`` if there is none.

    It was made since the run began, and not by Agenty's scheduler. A job that goes on comes first, then one that cost
    more than it may, then one that completed.

    :param of_other_tasks: Jobs that other tasks of this run hold: a run may start an agent twice on purpose.
    :param urls: The agent's input as this task sets it; ``None``: it sets none.
    :param max_failed_ratio: The share of failed pages above which a completed job is not taken; ``None``: any.
    :param max_credits: The page credits above which a job is taken, however it ended: another one would cost as much.
    :raises AgentyAmbiguousStartError: if several jobs may be it, or the list of jobs does not tell.
    """
    jobs = [
        job
        for job in hook.recent_jobs(agent_id, since=run_began).made_since(run_began)
        if job.agent_id in (None, agent_id) and not job.is_scheduled and job.job_id not in of_other_tasks
    ]
    going_on = [job for job in jobs if job.may_go_on]
    over_budget = [job for job in jobs if _ends_as(BUDGET, job, max_credits=max_credits)]
    if over_budget and not going_on:
        return over_budget[0]
    candidates = going_on or [job for job in jobs if _ends_as(SUCCESS, job, max_failed_ratio=max_failed_ratio)]
    if not candidates:
        return None
    job = candidates[0]
    if len(candidates) > 1:
        raise _ambiguous(
            agent_id,
            candidates,
            f"Agent {agent_id} has {len(candidates)} jobs that were made since this run began and "
            f"{'still go on' if going_on else 'completed'} ({_ids_of(candidates)}), and it is not known which of them "
            "an earlier try of this task started.",
        )
    if urls is not None and not going_on and hook.get_input(agent_id).data != tuple(urls):
        raise _ambiguous(
            agent_id,
            candidates,
            f"Job {job.job_id} of agent {agent_id} was made since this run began, and has completed. It is not known "
            "whether an earlier try of this task started it: the input of the agent is not what this task sets.",
        )
    log.warning(
        "Job %d of agent %s was made since this run began and %s: it is taken as the one that an earlier try of "
        "this task started. If somebody else started it, both use it",
        job.job_id,
        agent_id,
        "still goes on" if going_on else "completed",
    )
    return job


def _ambiguous(agent_id: str, candidates: list[Job], problem: str) -> AgentyAmbiguousStartError:
    return AgentyAmbiguousStartError(
        f"{problem} Nothing more was started. Look at the agent's jobs in Agenty and stop those that nobody wants. "
        "Then clear the task: it starts anew.",
        agent_id=agent_id,
        candidates=[job.job_id for job in candidates],
    )


def take_existing_job(
    hook: AgentyHook,
    agent_id: str,
    *,
    if_running: str,
    reuse_completed_within: float | None,
    max_failed_ratio: float | None,
) -> Job | None:
    """
    Return the job that the task's parameters have it take; ``None`` if one is to be started.

    :param if_running: The task's ``if_running``, which says what becomes of jobs that go on.
    :param reuse_completed_within: Seconds since a job completed within which it is taken; ``None``: none is.
    :param max_failed_ratio: The share of failed pages above which a completed job is not taken; ``None``: any.
    :raises AirflowSkipException: if one goes on and the task is to be skipped then.
    :raises AgentyAlreadyRunningError: if one goes on and that is an error.
    :raises AgentyTimeoutError: if one does not stop in time.
    """
    if if_running == START and reuse_completed_within is None:
        return None
    listed = hook.recent_jobs(agent_id)
    jobs = [job for job in listed.newest_first if job.agent_id in (None, agent_id)]
    if reuse_completed_within is not None:
        completed = _last_completed(jobs, listed, timedelta(seconds=reuse_completed_within), max_failed_ratio)
        if completed is not None:
            log.info(
                "Job %d of agent %s completed at %s: it is reused", completed.job_id, agent_id, completed.completed_at
            )
            return completed
    if if_running == STOP:
        _stop_all(hook, agent_id, [job for job in jobs if not job.is_terminal])
    going_on = [job for job in jobs if job.may_go_on]
    if not going_on or if_running in (START, STOP):
        return None
    return _join_or_refuse(agent_id, if_running, going_on)


def _ends_as(status: str, job: Job, **limits: float | None) -> bool:
    """Return whether a wait for the job, with such limits, would end now, and in this way."""
    outcome = judge(job, **limits)
    return outcome is not None and outcome.status == status


def _last_completed(
    jobs: list[Job], listed: ListedJobs, period: timedelta, max_failed_ratio: float | None
) -> Job | None:
    earliest = listed.now - period
    recent = [
        (job.completed_at, job.job_id, job)
        for job in jobs
        if _ends_as(SUCCESS, job, max_failed_ratio=max_failed_ratio)
        and job.completed_at is not None
        and job.completed_at >= earliest
    ]
    return max(recent)[2] if recent else None


def _join_or_refuse(agent_id: str, if_running: str, going_on: list[Job]) -> Job:
    if if_running == JOIN:
        log.info("Agent %s has job %d already: this task joins it", agent_id, going_on[0].job_id)
        return going_on[0]
    running = f"Agent {agent_id} is running already: job {_ids_of(going_on)}. Nothing was started."
    if if_running == SKIP:
        raise AirflowSkipException(running)
    raise AgentyAlreadyRunningError(
        f"{running} Wait until it is over, or set if_running to join, skip or stop.",
        agent_id=agent_id,
        job_ids=[job.job_id for job in going_on],
    )


def _stop_all(hook: AgentyHook, agent_id: str, jobs: list[Job]) -> None:
    for job in jobs:
        if job.may_go_on:
            log.warning("Stopping job %d of agent %s, to start another one", job.job_id, agent_id)
            hook.stop_job(job.job_id)
    ends = time.monotonic() + MAX_SECONDS_TO_STOP
    while jobs := [job for job in jobs if not hook.get_job(job.job_id).is_terminal]:
        if time.monotonic() >= ends:
            raise AgentyTimeoutError(
                f"Job {_ids_of(jobs)} of agent {agent_id} was stopped, and is not over after a minute. Nothing was "
                "started. Let the task retry, or look at the job in Agenty.",
                job=jobs[0],
            )
        time.sleep(SECONDS_BETWEEN_POLLS)


def _ids_of(jobs: list[Job]) -> str:
    return ids_in_words([job.job_id for job in jobs])
