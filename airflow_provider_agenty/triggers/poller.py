"""
The poller that all waiting triggers of one process share.

A thousand waiting jobs are a page or two of the list of jobs, whoever waits for them. So triggers with the same
connection and interval do not ask Agenty themselves: they tell the poller which job they watch, and it tells them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_agenty.api.jobs import Job
from airflow_provider_agenty.api.paging import Sighting
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyUnavailableError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.waiting import JobWatch, Outcome, jittered

log = logging.getLogger(__name__)

T = TypeVar("T")

REQUESTS_AT_ONCE = 4
"""How many requests of a poller may be under way."""

GATHERING_SECONDS = 0.5
"""How long a new poller waits for others to join before it asks for the first time."""

FIRST_ANSWER_SECONDS = 60.0
"""How long the first answer may take for one whose deadline is near or past."""

LONGEST_ASKED_WAIT = 300.0
"""How long Agenty may make a poller wait by ``Retry-After``, in seconds."""

JOBS_PER_PAGE = 1000


@dataclass(eq=False)
class Waiter:
    """
    Somebody who watches a job.

    :param watch: Is told each answer, and decides.
    :param context: Where the watch runs: a trigger's log lines find their task by it.
    :param told: Is done once there was any answer.
    :param outcome: How waiting ended.
    """

    watch: JobWatch
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    told: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    outcome: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def is_told(self, tell: Callable[[T], Outcome | None], what: T) -> None:
        """
        Let the watch take something in; what goes wrong in it is its own affair.

        :param tell: A method of the watch.
        :param what: What it is told.
        """
        if self.outcome.done():
            return
        if not self.told.done():
            self.told.set_result(None)
        try:
            outcome = self.context.run(tell, what)
        except Exception as error:
            self.outcome.set_exception(error)
        else:
            if outcome is not None:
                self.outcome.set_result(outcome)


class JobPoller:
    """
    Asks for the jobs that triggers watch, with one connection and one interval. Use :meth:`shared`.

    :param agenty_conn_id: The connection.
    :param poll_interval: Seconds between two rounds.
    """

    _pollers: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, float], JobPoller]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._poll_interval = poll_interval
        self._waiters: set[Waiter] = set()
        self._asked_singly: dict[int, asyncio.Task[None]] = {}
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def shared(cls, agenty_conn_id: str, poll_interval: float) -> JobPoller:
        """
        Return the poller of this event loop for a connection and an interval.

        :param agenty_conn_id: The connection.
        :param poll_interval: Seconds between two rounds.
        """
        pollers = cls._pollers.setdefault(asyncio.get_running_loop(), {})
        return pollers.setdefault((agenty_conn_id, poll_interval), cls(agenty_conn_id, poll_interval))

    async def wait(self, watch: JobWatch) -> Outcome:
        """
        Wait until a watch says that waiting is over.

        :param watch: Watches one job.
        :return: How it ended.
        """
        waiter = Waiter(watch)
        self._waiters.add(waiter)
        if self._task is None:
            # A context of its own: what the poller logs belongs to no single task.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
            self._task.add_done_callback(self._ended)
        try:
            return await self._outcome_in_time(waiter)
        finally:
            self._waiters.discard(waiter)
            if not self._waiters and self._task is not None:
                self._task.cancel()
                self._forget()

    @staticmethod
    async def _outcome_in_time(waiter: Waiter) -> Outcome:
        """Return the outcome, which is a timeout once the deadline is past, whatever Agenty does."""
        # The job may have ended while no triggerer ran: it is asked for once, however late it is.
        await asyncio.wait(
            [waiter.outcome, waiter.told],
            timeout=_timeout(max(waiter.watch.seconds_left, FIRST_ANSWER_SECONDS)),
            return_when=asyncio.FIRST_COMPLETED,
        )
        while not waiter.outcome.done():
            late = waiter.watch.check_deadline()
            if late is not None:
                return late
            await asyncio.wait([waiter.outcome], timeout=_timeout(waiter.watch.seconds_left))
        return waiter.outcome.result()

    # The rounds

    async def _run(self) -> None:
        executor = ThreadPoolExecutor(max_workers=REQUESTS_AT_ONCE, thread_name_prefix="agenty-poller")
        asking = _Asking(self._agenty_conn_id, executor)
        try:
            await asyncio.sleep(min(GATHERING_SECONDS, self._poll_interval))
            while self._waiters:
                await self._round(asking)
                await self._sleep()
        finally:
            for task in self._asked_singly.values():
                task.cancel()
            executor.shutdown(wait=False, cancel_futures=True)
            asking.close()

    async def _sleep(self) -> None:
        """Sleep for an interval, or longer where Agenty asks for it."""
        seconds = jittered(self._poll_interval)
        while seconds > 0:
            await asyncio.sleep(seconds)
            seconds = self._paused_until - time.monotonic()

    async def _round(self, asking: _Asking) -> None:
        """Ask for each job that is watched, in as few requests as it takes."""
        unseen = {waiter.watch.job_id for waiter in self._waiters} - self._asked_singly.keys()
        limit, offset, pages = min(2 * len(unseen) + 20, JOBS_PER_PAGE), 0, 0
        # Pages are read on as long as they may be cheaper than asking for each of the others.
        while pages < len(unseen) and len(unseen) > 1:
            try:
                sighting = await asking.look_for_jobs(frozenset(unseen), limit, offset)
            except AgentyError as error:
                self._miss(unseen, error)
                return
            pages += 1
            for job_id, job in sighting.jobs.items():
                self._see(job_id, job)
            unseen -= sighting.jobs.keys()
            if sighting.next_offset is None:
                break
            limit, offset = JOBS_PER_PAGE, sighting.next_offset
        for job_id in unseen:
            # Not waited for: one job whose answer is slow must not hold up the others.
            task = asyncio.create_task(self._ask_singly(asking, job_id))
            self._asked_singly[job_id] = task
            task.add_done_callback(functools.partial(self._was_asked_singly, job_id))

    async def _ask_singly(self, asking: _Asking, job_id: int) -> None:
        try:
            job = await asking.get_job(job_id)
        except AgentyError as error:
            # A wrong key is wrong for all.
            everybody = {waiter.watch.job_id for waiter in self._waiters}
            self._miss(everybody if isinstance(error, AgentyAuthError) else {job_id}, error)
        else:
            self._see(job_id, job)

    def _was_asked_singly(self, job_id: int, _task: asyncio.Task[None]) -> None:
        self._asked_singly.pop(job_id, None)

    def _see(self, job_id: int, job: Job) -> None:
        for waiter in self._watching({job_id}):
            waiter.is_told(waiter.watch.see, job)

    def _miss(self, job_ids: Collection[int], error: AgentyError) -> None:
        if isinstance(error, AgentyUnavailableError) and error.retry_after is not None:
            asked = time.monotonic() + min(error.retry_after, LONGEST_ASKED_WAIT)
            self._paused_until = max(self._paused_until, asked)
        for waiter in self._watching(job_ids):
            waiter.is_told(waiter.watch.miss, error)

    def _watching(self, job_ids: Collection[int]) -> list[Waiter]:
        return [waiter for waiter in self._waiters if waiter.watch.job_id in job_ids]

    # The end

    def _forget(self) -> None:
        self._task = None
        pollers = self._pollers.get(asyncio.get_running_loop(), {})
        if pollers.get((self._agenty_conn_id, self._poll_interval)) is self:
            del pollers[self._agenty_conn_id, self._poll_interval]

    def _ended(self, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for a poller that broke."""
        if task.cancelled() or task.exception() is None:
            return
        for waiter in self._waiters:
            if not waiter.outcome.done():
                waiter.outcome.set_exception(task.exception() or RuntimeError("the poller ended"))


def _timeout(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds


class _Asking:
    """
    The hook's calls, each in a thread: the event loop is never blocked.

    A failed call is not repeated here, the next round does that. What the hook does not expect, such as a secrets
    backend that is away, is no end of the wait either.
    """

    def __init__(self, agenty_conn_id: str, executor: ThreadPoolExecutor) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._executor = executor
        self._hook: AgentyHook | None = None

    async def look_for_jobs(self, job_ids: Collection[int], limit: int, offset: int) -> Sighting:
        return await self._call(lambda hook: hook.look_for_jobs(job_ids, limit=limit, offset=offset))

    async def get_job(self, job_id: int) -> Job:
        return await self._call(lambda hook: hook.get_job(job_id))

    async def _call(self, ask: Callable[[AgentyHook], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._ask, ask)
        except AgentyError:
            raise
        except Exception as error:
            log.warning("Agenty could not be asked", exc_info=True)
            unexpected = type(error).__name__
        raise AgentyUnavailableError(f"Agenty could not be asked ({unexpected}); the triggerer's log says more")

    def _ask(self, ask: Callable[[AgentyHook], T]) -> T:
        hook = self._hook
        if hook is not None:
            try:
                return ask(hook)
            except AgentyAuthError:
                # The key may have been replaced while jobs were waited for: the connection is read again, once.
                self.close()
        self._hook = hook = AgentyHook(self._agenty_conn_id).with_one_attempt()
        return ask(hook)

    def close(self) -> None:
        if self._hook is not None:
            self._hook.close()
            self._hook = None
