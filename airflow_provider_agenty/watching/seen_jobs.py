"""Which jobs a watcher has been through: enough to tell, from the list of jobs, which ones have completed since."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.watching.listing import Listing


class SeenJobs:
    """
    The jobs that a watcher has seen.

    Jobs complete in another order than they start, so one number does not do: it takes the newest job of the account,
    and those of the watched ones up to it that were not over when they were last looked at.

    :param agent_id: The agent whose jobs are watched; ``None``: all of the account.
    :param newest: The highest id seen; ``None``: nothing was seen yet.
    :param pending: The ids of those that may still complete.
    """

    def __init__(self, agent_id: str | None, newest: int | None = None, pending: frozenset[int] = frozenset()) -> None:
        self._agent_id = agent_id
        self.newest = newest
        self.pending = set(pending)

    @classmethod
    def from_dict(cls, agent_id: str | None, value: Any) -> SeenJobs:
        """
        Read back what :meth:`to_dict` made.

        :param agent_id: The agent.
        :param value: What it made.
        :raises ValueError: if it is something else.
        """
        if isinstance(value, Mapping):
            newest, pending = value.get("newest"), value.get("pending")
            if isinstance(newest, int) and isinstance(pending, list) and all(isinstance(each, int) for each in pending):
                return cls(agent_id, newest, frozenset(pending))
        raise ValueError(f"{value!r} does not say which jobs were seen")

    def to_dict(self) -> dict[str, Any]:
        """Return what was seen as JSON primitives."""
        return {"newest": self.newest, "pending": sorted(self.pending)}

    def take_in(self, listing: Listing) -> list[Job]:
        """
        Take in a listing.

        :param listing: What the list of jobs shows now.
        :return: The jobs that have completed, in the order in which they did. They stay pending until
            :meth:`has_passed_on`.
        """
        if self.newest is None:
            self._begin(listing)
            return []
        # One that was asked for before this watcher joined may not go down far enough.
        if listing.complete_after <= self.newest:
            self.pending |= {
                job_id for job_id, job in listing.jobs.items() if job_id > self.newest and self._is_for(job)
            }
            self.newest = max(self.newest, max(listing.jobs, default=0))
        over = [
            listing.jobs[job_id] for job_id in self.pending & listing.jobs.keys() if listing.jobs[job_id].is_terminal
        ]
        self.pending -= {job.job_id for job in over if not job.is_successful}
        self.pending.difference_update(listing.gone)
        return sorted((job for job in over if job.is_successful), key=_completion)

    def has_passed_on(self, job: Job) -> None:
        """
        Take in that a completed job was passed on to Airflow.

        :param job: The job.
        """
        self.pending.discard(job.job_id)

    def _begin(self, listing: Listing) -> None:
        if listing.reaches_back:
            self.newest = max(listing.jobs, default=0)
            self.pending = {job_id for job_id, job in listing.jobs.items() if not job.is_terminal and self._is_for(job)}

    def _is_for(self, job: Job) -> bool:
        return self._agent_id is None or job.agent_id == self._agent_id


def _completion(job: Job) -> tuple[float, int]:
    return (job.completed_at.timestamp() if job.completed_at else math.inf), job.job_id
