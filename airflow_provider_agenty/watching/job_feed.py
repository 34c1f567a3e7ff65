"""
What all watchers of an account's jobs share: one look at the list of jobs per interval.

Each watcher has been through the list down to some job, and has jobs in mind that were not over then. The feed reads
the list until it has all that is new to any of them, in as few requests as that takes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Collection
from typing import TYPE_CHECKING

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyNotFoundError
from airflow_provider_agenty.waiting.asking import Asking
from airflow_provider_agenty.waiting.outcome import FINAL_ERRORS
from airflow_provider_agenty.waiting.shared_poll import (
    JOBS_PER_PAGE,
    MOST_ASKED_SINGLY,
    MOST_PAGES,
    SharedPoll,
    Turns,
)
from airflow_provider_agenty.watching.listing import Listing
from airflow_provider_agenty.watching.seen_jobs import SeenJobs

if TYPE_CHECKING:
    from airflow_provider_agenty.api.pages import JobPage

log = logging.getLogger(__name__)

SLOW_SECONDS = 300.0
"""How long to wait before asking again what asking again will not change, such as with a wrong key."""

REMINDER_SECONDS = 600.0
"""How often a trouble that lasts is told again."""


class JobFeed(SharedPoll):
    """
    Looks at the list of jobs for all who watch them, with one connection and one interval. Use :meth:`shared`.

    :param agenty_conn_id: The connection.
    :param poll_interval: Seconds between two looks.
    """

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        super().__init__(agenty_conn_id, poll_interval)
        self._watchers: set[SeenJobs] = set()
        self._readers = 0
        self._latest: Listing | None = None
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trouble = _Trouble(agenty_conn_id)
        self._newest_is_missing = False
        self._is_endless = False
        self._turns = Turns()

    def join(self, seen: SeenJobs) -> None:
        """
        Have the listings hold what is new to a watcher, from the next one on.

        :param seen: What the watcher has seen; it goes on changing.
        """
        self._watchers.add(seen)
        self._start()

    def leave(self, seen: SeenJobs) -> None:
        """
        Have the listings no longer hold what is new to a watcher.

        :param seen: What it had joined with.
        """
        self._watchers.discard(seen)
        if not self._watchers:
            self._stop()
        self._forget_if_unused()

    async def listings(self) -> AsyncGenerator[Listing, None]:
        """
        Yield each listing from now on, without end.

        One who is late misses some. That loses nothing: the next one holds all that is new to those who have joined.
        """
        self._readers += 1
        try:
            latest = self._latest
            while True:
                while self._latest is latest:
                    # Awaited by itself, the future would be cancelled with the first of its readers.
                    told = self._next
                    await asyncio.wait([told])
                    told.result()
                latest = self._latest
                if latest is not None:
                    yield latest
        finally:
            self._readers -= 1
            self._forget_if_unused()

    def _forget_if_unused(self) -> None:
        if not self._watchers and not self._readers:
            self._forget()

    # The rounds

    async def _round(self, asking: Asking) -> None:
        try:
            listing = await self._look(asking)
        except AgentyError as error:
            self._trouble.lasts(error)
            self._pause_if_asked_to(error)
            if isinstance(error, FINAL_ERRORS):
                self._pause(SLOW_SECONDS)
        else:
            self._trouble.is_over()
            self._publish(listing)

    def _publish(self, listing: Listing) -> None:
        self._latest = listing
        told, self._next = self._next, asyncio.get_running_loop().create_future()
        told.set_result(None)

    async def _look(self, asking: Asking) -> Listing:
        """Look at the list as far down as any of the watchers needs it."""
        known = [seen.newest for seen in self._watchers if seen.newest is not None]
        somebody_begins = len(known) < len(self._watchers)
        pending = {job_id for seen in self._watchers for job_id in seen.pending}
        limit = JOBS_PER_PAGE if somebody_begins else min(2 * len(pending) + 20, JOBS_PER_PAGE)
        shown = _Shown()
        offset = further_pages = 0
        for _ in range(MOST_PAGES):
            next_offset = shown.add(await asking.list_job_page(limit, offset))
            if next_offset is None:
                break
            limit, offset = JOBS_PER_PAGE, next_offset
            if shown.complete_after > min(known, default=math.inf) or not shown.is_newest_first:
                continue
            # All that is new is there. Pages are read on as long as they may be cheaper than asking for each job.
            unseen = pending - shown.jobs.keys()
            if further_pages >= len(unseen) or shown.complete_after < min(unseen):
                break
            further_pages += 1
        self._notice_odd_list(shown, known)
        singly, gone = await self._ask_singly(asking, self._turns.take(pending - shown.jobs.keys(), MOST_ASKED_SINGLY))
        reaches_back = somebody_begins and not math.isinf(shown.complete_after)
        return Listing(shown.jobs | singly, gone, shown.complete_after, reaches_back)

    async def _ask_singly(self, asking: Asking, job_ids: Collection[int]) -> tuple[dict[int, Job], set[int]]:
        """Return the jobs, and which of them are no more. One that can't be asked for now is asked for next time."""
        answers = await asyncio.gather(*(asking.get_job(job_id) for job_id in job_ids), return_exceptions=True)
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
                self._pause_if_asked_to(answer)
                log.warning("Job %d could not be asked for, trying again: %s", job_id, answer)
        return jobs, gone

    def _notice_odd_list(self, shown: _Shown, known: Collection[int]) -> None:
        is_missing = bool(known) and max(shown.jobs, default=0) < max(known)
        if is_missing and not self._newest_is_missing:
            log.warning(
                "Job %d was the newest of connection %r, and the list ends at job %d now. If the connection leads to "
                "another account, its watchers see nothing until that has newer jobs: delete what they remember (see "
                "docs/event-driven.md)",
                max(known),
                self._agenty_conn_id,
                max(shown.jobs, default=0),
            )
        self._newest_is_missing = is_missing
        is_endless = math.isinf(shown.complete_after)
        if is_endless and not self._is_endless:
            log.warning(
                "The list of jobs of connection %r is not in its order, newest first, and did not end within %d pages: "
                "watchers may miss new jobs until it does",
                self._agenty_conn_id,
                MOST_PAGES,
            )
        self._is_endless = is_endless

    # The end

    def _ended(self) -> None:
        """Nothing of a round is left under way: it waits for all that it asks."""

    def _broke(self, error: BaseException) -> None:
        self._task = None
        told, self._next = self._next, asyncio.get_running_loop().create_future()
        if self._readers:
            told.set_exception(error)


class _Shown:
    """What the pages of the list have shown so far. Their order is looked at: by it is told what is still missing."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.is_newest_first = True
        self.complete_after = math.inf

    def add(self, page: JobPage) -> int | None:
        """Take in a page, and return where the next one begins; ``None`` if there is none, or this had nothing new."""
        new = page.jobs.keys() - self.jobs.keys()
        if new and not (page.is_newest_first and max(new) < min(self.jobs, default=math.inf)):
            self.is_newest_first = False
        self.jobs |= page.jobs
        if page.next_offset is None:
            self.complete_after = 0
        else:
            self.complete_after = min(self.jobs, default=math.inf) - 1 if self.is_newest_first else math.inf
        return page.next_offset if new else None


class _Trouble:
    """
    Tells when the list can't be read, once for each kind of trouble and now and then while it lasts.

    :param agenty_conn_id: The connection.
    """

    def __init__(self, agenty_conn_id: str) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._kind: type[AgentyError] | None = None
        self._since = 0.0
        self._told_at = 0.0

    def lasts(self, error: AgentyError) -> None:
        now = time.monotonic()
        if self._kind is None:
            self._since = now
        if self._kind is not type(error) or now - self._told_at >= REMINDER_SECONDS:
            log.warning(
                "The jobs of connection %r can't be watched now, trying on: %s", self._agenty_conn_id, str(error)
            )
            self._told_at = now
        self._kind = type(error)

    def is_over(self) -> None:
        if self._kind is not None:
            log.info(
                "The jobs of connection %r can be watched again, after %.0f s",
                self._agenty_conn_id,
                time.monotonic() - self._since,
            )
        self._kind = None
