"""
The list of jobs for all watchers of an account, polled once per interval.

Each watcher has seen the jobs up to some id, and remembers those that were not over. The feed reads the list until it
has all that is new to any of them, in as few requests as that takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty.airflow_compat import shared_stream_producer_base
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyNotFoundError
from airflow_provider_agenty.waiting.outcome import FINAL_ERRORS
from airflow_provider_agenty.waiting.shared_poller import JOBS_PER_PAGE, MAX_PAGES, JobList, SharedPoller
from airflow_provider_agenty.watching.watcher_state import Listing, WatcherState

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer
else:
    SharedStreamProducer = shared_stream_producer_base()

log = logging.getLogger(__name__)

SECONDS_AFTER_FINAL_ERROR = 300.0
"""Minimum seconds before the next poll after an error that only a person can change, such as a wrong key."""

SECONDS_BETWEEN_REMINDERS = 600.0
"""Seconds between two lines about the same error while it lasts."""


class JobFeed(SharedPoller):
    """Polls the list of jobs for watchers."""

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        super().__init__(agenty_conn_id, poll_interval)
        self._watchers: set[WatcherState] = set()
        self._latest: Listing | None = None
        self._published = asyncio.Condition()
        self._number = 0
        self._error: type[AgentyError] | None = None
        self._error_since = self._error_logged_at = 0.0
        self._lasting: set[str] = set()

    @contextlib.contextmanager
    def watched_by(self, state: WatcherState) -> Iterator[None]:
        """Have the listings hold what is new to a watcher while the block runs."""
        self._watchers.add(state)
        try:
            with self._in_use():
                yield
        finally:
            self._watchers.discard(state)

    async def listings(self) -> AsyncGenerator[Listing, None]:
        """
        Yield each listing from now on, without end.

        A reader that is late misses some, and loses nothing: the next one holds all that is new to the watchers.
        """
        with self._in_use(start=False):
            latest = self._latest
            while True:
                async with self._published:
                    while self._latest is latest:
                        await self._published.wait()
                latest = self._latest
                if latest is not None:
                    yield latest

    async def _poll(self) -> None:
        if not self._watchers:
            return
        try:
            listing = await self._list()
        except AgentyError as error:
            self._log_error(error)
            self._heed_retry_after(error)
            if isinstance(error, FINAL_ERRORS):
                self._pause(SECONDS_AFTER_FINAL_ERROR)
            return
        self._log_recovery()
        async with self._published:
            self._latest = listing
            self._published.notify_all()

    async def _list(self) -> Listing:
        """Read the list as far down as any of the watchers needs it."""
        known = [state.newest for state in self._watchers if state.newest is not None]
        is_long = len(known) < len(self._watchers)
        pending = frozenset(job_id for state in self._watchers for job_id in state.pending)
        pages = self._read_list(
            pending, first_limit=JOBS_PER_PAGE if is_long else None, down_to=min(known, default=sys.maxsize)
        )
        [*_, listed] = [listed async for listed in pages]
        self._log_odd_list(listed, newest=max(known, default=0))
        jobs, gone = await self._ask_singly(self._next_to_ask_singly(pending - listed.jobs.keys()))
        self._number += 1
        is_long = is_long and not math.isinf(listed.complete_after)
        return Listing(self._number, listed.jobs | jobs, gone, listed.complete_after, is_long)

    async def _ask_singly(self, job_ids: Collection[int]) -> tuple[dict[int, Job], set[int]]:
        """Return the jobs, and which of them are gone. A job that can't be asked for now is asked for another time."""
        answers = await asyncio.gather(*(self._hook.get_job(job_id) for job_id in job_ids), return_exceptions=True)
        jobs: dict[int, Job] = {}
        gone: set[int] = set()
        for job_id, answer in zip(job_ids, answers, strict=True):
            if isinstance(answer, Job):
                jobs[job_id] = answer
            elif isinstance(answer, AgentyNotFoundError):
                gone.add(job_id)
                log.info("Job %d was watched and is no longer there", job_id)
            elif isinstance(answer, AgentyAuthError) or not isinstance(answer, AgentyError):
                raise answer
            else:
                self._heed_retry_after(answer)
                log.warning("Job %d could not be polled, trying again: %s", job_id, answer)
        return jobs, gone

    def _log_error(self, error: AgentyError) -> None:
        now = time.monotonic()
        if self._error is None:
            self._error_since = now
        if self._error is not type(error) or now - self._error_logged_at >= SECONDS_BETWEEN_REMINDERS:
            log.warning("The jobs of connection %r can't be listed, trying again: %s", self._agenty_conn_id, error)
            self._error_logged_at = now
        self._error = type(error)

    def _log_recovery(self) -> None:
        if self._error is not None:
            seconds = time.monotonic() - self._error_since
            log.info("The jobs of connection %r can be listed again, after %.0f s", self._agenty_conn_id, seconds)
        self._error = None

    def _log_odd_list(self, listed: JobList, *, newest: int) -> None:
        listed_newest = max(listed.jobs, default=0)
        self._log_once(
            "newest is missing",
            listed_newest < newest,
            "Job %d was the newest of connection %r, and the list ends at job %d now. If the connection leads to "
            "another account, its watchers see nothing until that account has newer jobs. Delete what they have "
            "stored: the keys agenty_jobs/… of their assets",
            newest,
            self._agenty_conn_id,
            listed_newest,
        )
        self._log_once(
            "no order",
            math.isinf(listed.complete_after),
            "The list of jobs of connection %r is not sorted newest first, and did not end within %d pages: "
            "watchers may miss new jobs until it does",
            self._agenty_conn_id,
            MAX_PAGES,
        )

    def _log_once(self, name: str, holds: bool, message: str, *arguments: Any) -> None:
        """Log a warning when its condition begins to hold."""
        if holds and name not in self._lasting:
            log.warning(message, *arguments)
        (self._lasting.add if holds else self._lasting.discard)(name)


class JobListProducer(SharedStreamProducer):
    """
    Passes the listings of a feed to the triggers of one of Airflow's shared streams (Airflow 3.3 and later).

    It stores what the watchers have seen once Airflow has stored their events.
    """

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._poll_interval = poll_interval
        self._passed_on = 0
        self._not_saved_up_to = 0

    async def open_stream(self) -> AsyncIterator[tuple[Listing, Listing]]:
        """Yield each listing, for the triggers and for :meth:`advance`."""
        async with contextlib.aclosing(JobFeed.shared(self._agenty_conn_id, self._poll_interval).listings()) as feed:
            async for listing in feed:
                self._passed_on = listing.number
                yield listing, listing

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """
        Store what the watchers have seen.

        :param batch: Listings that the triggers have done with, in their order.
        """
        latest: dict[WatcherState, dict[str, Any]] = {}
        for item in batch:
            listing: Listing = item.broker_payload
            if not item.outcome.is_clean:
                # Airflow did not store an event of one of the watchers, and does not say of which one. It passes that
                # watcher no further listing, so the listings after these are safe for all others.
                self._not_saved_up_to = self._passed_on
            elif listing.number > self._not_saved_up_to:
                latest |= listing.states
        await asyncio.gather(*(state.save(seen) for state, seen in latest.items()))
