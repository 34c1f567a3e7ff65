"""
The poller that all waiting triggers of one process share.

A thousand waiting jobs are a page or two of the list of jobs, whoever waits for them. So triggers with the same
connection and interval do not ask Agenty themselves: they tell the poller which job they watch, and it tells them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError
from airflow_provider_agenty.waiting.asking import Asking
from airflow_provider_agenty.waiting.job_watch import JobWatch
from airflow_provider_agenty.waiting.outcome import Outcome
from airflow_provider_agenty.waiting.shared_poll import (
    JOBS_PER_PAGE,
    MOST_ASKED_SINGLY,
    MOST_PAGES,
    SharedPoll,
    Turns,
)

T = TypeVar("T")

FIRST_ANSWER_SECONDS = 60.0
"""How long the first answer may take for one whose deadline is near or past."""

TOLD_AT_ONCE = 10
"""How many jobs' waiters are told something before others of the event loop have a turn."""


@dataclass(eq=False)
class Waiter:
    """
    Somebody who watches a job.

    :param watch: Is told each answer, and decides.
    :param context: Where the watch runs: a trigger's log lines find their task by it.
    :param outcome: How waiting ended.
    :param alarm: Rings when the deadline has to be looked at.
    """

    watch: JobWatch
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    outcome: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    alarm: asyncio.TimerHandle | None = None

    def keep_the_deadline(self) -> None:
        """Have waiting end in time, whatever Agenty does."""
        # The job may have ended while no triggerer ran: it is asked for once, however late it is.
        self._set_alarm(max(self.watch.seconds_left, FIRST_ANSWER_SECONDS))

    def is_told(self, tell: Callable[[T], Outcome | None], what: T) -> None:
        """
        Let the watch take something in; what goes wrong in it is its own affair.

        :param tell: A method of the watch.
        :param what: What it is told.
        """
        if self.outcome.done():
            return
        try:
            outcome = self.context.run(tell, what)
        except Exception as error:
            self.outcome.set_exception(error)
        else:
            if outcome is not None:
                self.outcome.set_result(outcome)
            elif self.watch.seconds_left < FIRST_ANSWER_SECONDS:
                self._set_alarm(self.watch.seconds_left)

    def cancel_alarm(self) -> None:
        """Look at the clock no more."""
        if self.alarm is not None:
            self.alarm.cancel()

    def _set_alarm(self, seconds: float) -> None:
        self.cancel_alarm()
        if not math.isinf(seconds):
            self.alarm = asyncio.get_running_loop().call_later(seconds, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        if self.outcome.done():
            return
        late = self.watch.check_deadline(time.time())
        if late is not None:
            self.outcome.set_result(late)
        else:
            self._set_alarm(self.watch.seconds_left)


class JobPoller(SharedPoll):
    """
    Asks for the jobs that triggers watch, with one connection and one interval. Use :meth:`shared`.

    :param agenty_conn_id: The connection.
    :param poll_interval: Seconds between two rounds.
    """

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        super().__init__(agenty_conn_id, poll_interval)
        self._waiters: dict[int, set[Waiter]] = {}
        self._asked_singly: dict[int, asyncio.Task[None]] = {}
        self._turns = Turns()

    async def wait(self, watch: JobWatch) -> Outcome:
        """
        Wait until a watch says that waiting is over.

        :param watch: Watches one job.
        :return: How it ended.
        """
        waiter = Waiter(watch)
        waiter.keep_the_deadline()
        self._waiters.setdefault(watch.job_id, set()).add(waiter)
        self._start()
        try:
            return await waiter.outcome
        finally:
            self._leave(waiter)
            if not self._waiters:
                self._stop()
                self._forget()

    def _leave(self, waiter: Waiter) -> None:
        waiter.cancel_alarm()
        job_id = waiter.watch.job_id
        self._waiters[job_id].discard(waiter)
        if not self._waiters[job_id]:
            del self._waiters[job_id]

    # The rounds

    async def _round(self, asking: Asking) -> None:
        """Ask for each job that is watched, in as few requests as it takes."""
        unseen = self._waiters.keys() - self._asked_singly.keys()
        try:
            await self._look_in_the_list(asking, unseen)
        except AgentyError as error:
            await self._miss(unseen, error)
            return
        for job_id in self._turns.take(unseen, MOST_ASKED_SINGLY - len(self._asked_singly)):
            # Not waited for: one job whose answer is slow must not hold up the others.
            task = asyncio.create_task(self._ask_singly(asking, job_id))
            self._asked_singly[job_id] = task
            task.add_done_callback(functools.partial(self._was_asked_singly, job_id))

    async def _look_in_the_list(self, asking: Asking, unseen: set[int]) -> None:
        """Tell of the jobs that the list shows, and take them out of those that are still unseen."""
        limit, offset, pages = min(2 * len(unseen) + 20, JOBS_PER_PAGE), 0, 0
        listed: set[int] = set()
        # Pages are read on as long as they may be cheaper than asking for each of the others.
        while pages < min(len(unseen), MOST_PAGES) and len(unseen) > 1:
            page = await asking.list_job_page(limit, offset)
            pages += 1
            found = {job_id: page.jobs[job_id] for job_id in unseen & page.jobs.keys()}
            unseen.difference_update(found)
            await self._see(found)
            has_nothing_new = listed >= page.jobs.keys()
            is_older = page.is_newest_first and min(page.jobs, default=0) <= min(unseen, default=0)
            if page.next_offset is None or has_nothing_new or is_older:
                return
            listed |= page.jobs.keys()
            limit, offset = JOBS_PER_PAGE, page.next_offset

    async def _ask_singly(self, asking: Asking, job_id: int) -> None:
        try:
            job = await asking.get_job(job_id)
        except AgentyError as error:
            # A wrong key is wrong for all.
            await self._miss(set(self._waiters) if isinstance(error, AgentyAuthError) else {job_id}, error)
        else:
            await self._see({job_id: job})

    def _was_asked_singly(self, job_id: int, _task: asyncio.Task[None]) -> None:
        self._asked_singly.pop(job_id, None)

    async def _see(self, jobs: Mapping[int, Job]) -> None:
        # Those whose wait ends come first: telling a thousand others how far their jobs are takes a while.
        over_first = sorted(jobs, key=lambda job_id: not jobs[job_id].is_terminal)
        async for waiter in self._in_turns(over_first):
            waiter.is_told(waiter.watch.take, jobs[waiter.watch.job_id])

    async def _miss(self, job_ids: Collection[int], error: AgentyError) -> None:
        self._pause_if_asked_to(error)
        async for waiter in self._in_turns(job_ids):
            waiter.is_told(waiter.watch.take, error)

    async def _in_turns(self, job_ids: Collection[int]) -> AsyncIterator[Waiter]:
        """Yield those who watch some jobs, a few at a time: their log lines and their ends would stall the others."""
        for number, job_id in enumerate(job_ids, 1):
            for waiter in tuple(self._waiters.get(job_id, ())):
                yield waiter
            if number % TOLD_AT_ONCE == 0:
                await asyncio.sleep(0)

    # The end

    def _ended(self) -> None:
        for task in self._asked_singly.values():
            task.cancel()

    def _broke(self, error: BaseException) -> None:
        for waiter in itertools.chain.from_iterable(self._waiters.values()):
            if not waiter.outcome.done():
                waiter.outcome.set_exception(error)
