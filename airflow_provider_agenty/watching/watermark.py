"""Where a watcher keeps which jobs it has seen: in the state store of its asset, which outlives a triggerer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from airflow_provider_agenty.watching.seen_jobs import SeenJobs

log = logging.getLogger(__name__)

SAVE_SECONDS = 5.0
"""How long storing may take. A triggerer that stops does not answer any more, and kills after 10 s."""

LOAD_AGAIN_SECONDS = 10.0
"""How long to wait before reading again what could not be read."""


class Watermark:
    """
    Which jobs were seen by a watcher, kept where a restart finds it.

    :param store: Airflow's state store for the assets of the watcher; ``None`` (before Airflow 3.3): nothing is kept.
    :param key: Under which key.
    :param agent_id: The agent that is watched; ``None``: all.
    """

    def __init__(self, store: Any, key: str, agent_id: str | None) -> None:
        self._stores = [] if store is None else _store_of_each_asset(store)
        self._key = key
        self._agent_id = agent_id
        self._saved: dict[str, Any] | None = None
        self._in_doubt: set[int] = set()
        self._in_doubt_until = 0

    async def load(self) -> SeenJobs:
        """
        Return what was seen; nothing if there is nothing kept.

        While the store can't be read it is tried again: to begin anew would lose jobs.
        """
        while True:
            try:
                values = [await store.aget(self._key) for store in self._stores]
            except Exception as error:
                log.warning("What a watcher has seen (%s) can't be read, trying again: %s", self._key, error)
                await asyncio.sleep(LOAD_AGAIN_SECONDS)
            else:
                return self._most_advanced(values)

    def _most_advanced(self, values: list[Any]) -> SeenJobs:
        """Return the latest of what the assets know: one that was added later, or added again, knows less."""
        found = []
        for value in values:
            if value is not None:
                try:
                    found.append(SeenJobs.from_dict(self._agent_id, value))
                except ValueError as error:
                    log.warning("What a watcher has seen (%s) is of no use, it begins anew: %s", self._key, error)
        latest = max(found, key=lambda seen: (seen.newest or 0, -len(seen.pending)), default=SeenJobs(self._agent_id))
        if values and all(value == latest.to_dict() for value in values):
            self._saved = latest.to_dict()
        return latest

    def doubt(self, job_ids: Collection[int], *, until: int) -> None:
        """
        Take in that Airflow may not have stored the events of some jobs: they are kept as not over.

        :param job_ids: The jobs.
        :param until: The number of the last listing that was sent out. Airflow sends no other one to a watcher whose
            event it did not store: with a later one the doubt is over.
        """
        self._in_doubt.update(job_ids)
        self._in_doubt_until = until

    async def save(self, seen: dict[str, Any], *, number: int) -> None:
        """
        Keep what was seen. If it can't be kept now, the next time will do.

        :param seen: What :meth:`SeenJobs.to_dict` made.
        :param number: The number of the listing that it was seen with.
        """
        if number > self._in_doubt_until:
            self._in_doubt.clear()
        seen = {**seen, "pending": sorted({*seen["pending"], *self._in_doubt})}
        if seen == self._saved or seen["newest"] is None:
            return
        try:
            async with asyncio.timeout(SAVE_SECONDS):
                for store in self._stores:
                    await store.aset(self._key, seen)
        except Exception as error:
            log.warning(
                "What a watcher has seen (%s) could not be stored, it is tried again after the next poll: %s",
                self._key,
                str(error) or type(error).__name__,
            )
        else:
            self._saved = seen


def _store_of_each_asset(store: Any) -> list[Any]:
    # A watcher may belong to several assets. Airflow has no public way to ask for which ones, and its shortcut for one
    # asset refuses several.
    stores = [*getattr(store, "_by_name", {}).values(), *getattr(store, "_by_uri", {}).values()]
    return stores or [store]
