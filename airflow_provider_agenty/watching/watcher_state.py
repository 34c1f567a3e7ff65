"""The jobs that a watcher has seen, in memory and in the state store of its asset, which outlives a triggerer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_agenty.api.models import Job

log = logging.getLogger(__name__)

MAX_SAVE_SECONDS = 5.0
"""Seconds that storing may take. A triggerer that stops does not answer any more, and kills after 10 s."""

SECONDS_BETWEEN_LOADS = 10.0
"""Seconds before a store that could not be read is read again."""


@dataclass(eq=False)
class Listing:
    """
    The result of one poll of the list of jobs, for all watchers.

    :param number: Counts the listings.
    :param jobs: The jobs, by id.
    :param gone: Jobs that were asked for and no longer exist.
    :param complete_after: Every job with a higher id is among the jobs.
    :param is_long: Whether it goes back far enough for a watcher to begin with.
    :param states: For each watcher what it has seen, as far as it has passed on what ended.
    """

    number: int
    jobs: Mapping[int, Job]
    gone: Collection[int]
    complete_after: float
    is_long: bool
    states: dict[WatcherState, dict[str, Any]] = field(default_factory=dict)


class WatcherState:
    """
    The jobs that a watcher has seen.

    Jobs end in another order than they start, so one number does not do. The state is the newest job of the
    account, and those watched jobs up to it that were not over at the last poll.

    :param agent_id: The agent whose jobs are watched; ``None``: all of the account.
    :param store: Airflow's state store for the assets of the watcher; ``None`` (before Airflow 3.3): nothing is stored.
    :param key: The key in the store.
    :param statuses: The states in which a job ends to be passed on.
    """

    def __init__(self, agent_id: str | None, store: Any, key: str, statuses: Collection[str]) -> None:
        self.newest: int | None = None
        self.pending: set[int] = set()
        self._agent_id = agent_id
        self._statuses = statuses
        self._stores = [] if store is None else _store_of_each_asset(store)
        self._key = key
        self._saved: dict[str, Any] | None = None

    async def load(self) -> None:
        """Read what was stored, if anything."""
        values = await self._read_stores()
        usable = [value for value in values if value is not None and self._is_usable(value)]
        if usable:
            # An asset that was added later, or added again, knows less.
            latest = max(usable, key=lambda value: (value["newest"], -len(value["pending"])))
            self.newest, self.pending = latest["newest"], set(latest["pending"])
            if all(value == self._to_dict() for value in values):
                self._saved = self._to_dict()

    async def _read_stores(self) -> list[Any]:
        # Read again until it can be read: to begin anew would lose jobs.
        while True:
            try:
                return [await store.aget(self._key) for store in self._stores]
            except Exception as error:
                log.warning("The state of a watcher (%s) could not be read, trying again: %s", self._key, error)
                await asyncio.sleep(SECONDS_BETWEEN_LOADS)

    def _is_usable(self, value: Any) -> bool:
        if isinstance(value, Mapping) and isinstance(value.get("newest"), int):
            pending = value.get("pending")
            if isinstance(pending, list) and all(isinstance(job_id, int) for job_id in pending):
                return True
        log.warning("The state of a watcher (%s) can't be used, it begins anew: %r", self._key, value)
        return False

    def _to_dict(self) -> dict[str, Any]:
        return {"newest": self.newest, "pending": sorted(self.pending)}

    def take(self, listing: Listing) -> list[Job]:
        """
        Take in a listing.

        :return: The jobs that have ended as asked for, in the order of their ends. They stay pending until
            :meth:`pass_on`.
        """
        if self.newest is None:
            ended = []
            if listing.is_long:
                self.newest = max(listing.jobs, default=0)
                self.pending = {job.job_id for job in self._watched(listing) if not job.is_terminal}
        else:
            # A listing that was asked for before this watcher joined may not go down far enough.
            if listing.complete_after <= self.newest:
                self.pending |= {job.job_id for job in self._watched(listing) if job.job_id > self.newest}
                self.newest = max(self.newest, max(listing.jobs, default=0))
            over = [job for job_id in self.pending if (job := listing.jobs.get(job_id)) and job.is_terminal]
            ended = sorted((job for job in over if job.status in self._statuses), key=_end)
            self.pending -= {*listing.gone, *(job.job_id for job in over if job.status not in self._statuses)}
        listing.states[self] = self._to_dict()
        return ended

    def pass_on(self, job: Job, listing: Listing) -> None:
        """Note that Airflow has taken the event of a job that ended."""
        self.pending.discard(job.job_id)
        listing.states[self] = self._to_dict()

    def _watched(self, listing: Listing) -> list[Job]:
        return [job for job in listing.jobs.values() if self._agent_id in (None, job.agent_id)]

    async def save(self, state: dict[str, Any]) -> None:
        """Store one of :attr:`Listing.states`. A store that does not take it gets the next one."""
        if state == self._saved or state["newest"] is None:
            return
        try:
            async with asyncio.timeout(MAX_SAVE_SECONDS):
                for store in self._stores:
                    await store.aset(self._key, state)
        except Exception as error:
            log.warning(
                "The state of a watcher (%s) could not be stored, trying again after the next poll: %s",
                self._key,
                str(error) or type(error).__name__,
            )
        else:
            self._saved = state


def _end(job: Job) -> tuple[float, int]:
    ended_at = job.completed_at or job.stopped_at
    return (ended_at.timestamp() if ended_at else math.inf), job.job_id


def _store_of_each_asset(store: Any) -> list[Any]:
    # A watcher may belong to several assets. Airflow has no public way to ask for which ones, and its shortcut for one
    # asset refuses several.
    stores = [*getattr(store, "_by_name", {}).values(), *getattr(store, "_by_uri", {}).values()]
    return stores or [store]
