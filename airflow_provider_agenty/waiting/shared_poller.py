"""
The pollers that triggers of one process share: one for each connection and interval.

A thousand waiting jobs are a page or two of the list of jobs. So triggers do not ask Agenty themselves: they tell the
poller which job they watch, and the poller passes them the answers.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import contextvars
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self, cast
from weakref import WeakKeyDictionary

from airflow_provider_agenty import metrics
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyUnavailableError
from airflow_provider_agenty.waiting.async_hook import AsyncHook
from airflow_provider_agenty.waiting.job_watch import LAST_POLL_SECONDS, JobWatch, jittered
from airflow_provider_agenty.waiting.outcome import FINAL_ERRORS, Outcome

if TYPE_CHECKING:
    from airflow_provider_agenty.api.pages import JobPage

log = logging.getLogger(__name__)

GATHERING_SECONDS = 0.5
"""How long a new poller waits for others to join before it asks for the first time."""

MAX_RETRY_AFTER_SECONDS = 300.0
"""How long Agenty may make a poller wait by ``Retry-After``."""

FIRST_ANSWER_SECONDS = 60.0
"""How long the first answer may take for a wait whose deadline is near or past."""

JOBS_PER_PAGE = 1000

MAX_PAGES = 50
"""How many pages of the list of jobs one poll reads at most."""

MAX_SINGLE_REQUESTS = 100
"""How many jobs that the list does not show are asked for one by one at a time."""

WAITERS_AT_ONCE = 10
"""How many jobs' waiters get an answer before others of the event loop have a turn."""


@dataclass
class JobList:
    """
    What the pages of the list of jobs show that were read so far.

    :param jobs: The jobs, by id.
    :param complete_after: Every job with a higher id is among the jobs. Infinite if the list is not newest first,
        and not read to its end.
    """

    jobs: dict[int, Job] = field(default_factory=dict)
    complete_after: float = math.inf
    _is_newest_first: bool = True

    def add(self, page: JobPage) -> int | None:
        """Add a page, and return where the next one begins; ``None`` if there is none, or this one had nothing new."""
        new = page.jobs.keys() - self.jobs.keys()
        if new and not (page.is_newest_first and max(new) < min(self.jobs, default=math.inf)):
            self._is_newest_first = False
        self.jobs |= page.jobs
        if page.end >= page.total:
            self.complete_after = 0
        else:
            self.complete_after = min(self.jobs, default=math.inf) - 1 if self._is_newest_first else math.inf
        return page.next_offset if new else None


class SharedPoller(ABC):
    """
    Polls Agenty for all who use it, as long as there are any. Use :meth:`shared`.

    :param agenty_conn_id: The connection.
    :param poll_interval: Seconds between two polls.
    """

    _shared: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[type, str, float], SharedPoller]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._poll_interval = poll_interval
        self._users = 0
        self._waiters = 0
        self._task: asyncio.Task[None] | None = None
        self._paused_until = 0.0
        self._is_needed_now = asyncio.Event()
        self._last_asked_singly = 0
        self._hook: AsyncHook
        self._requests: asyncio.TaskGroup

    @classmethod
    def shared(cls, agenty_conn_id: str, poll_interval: float) -> Self:
        """Return the poller of this kind that the event loop has for a connection and an interval."""
        pollers = SharedPoller._shared.setdefault(asyncio.get_running_loop(), {})
        key = (cls, agenty_conn_id, poll_interval)
        if key not in pollers:
            pollers[key] = cls(agenty_conn_id, poll_interval)
        return cast(Self, pollers[key])

    @property
    def _tags(self) -> dict[str, str]:
        return {
            "conn_id": self._agenty_conn_id,
            "poll_interval": f"{self._poll_interval:g}",
            "poller": type(self).__name__,
        }

    @contextlib.contextmanager
    def _in_use(self, *, start: bool = True) -> Iterator[None]:
        """
        Keep the poller while the block runs.

        :param start: Whether a trigger waits there, for which the poller starts unless it runs already.
        """
        self._users += 1
        self._waiters += start
        if start and self._task is None:
            # A context of its own: what the poller logs belongs to no single task.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        try:
            yield
        finally:
            self._waiters -= start
            self._users -= 1
            if not self._users:
                self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
            metrics.gauge(metrics.POLLER_WAITERS, 0, **self._tags)
        pollers = SharedPoller._shared.get(asyncio.get_running_loop(), {})
        key = (type(self), self._agenty_conn_id, self._poll_interval)
        if pollers.get(key) is self:
            del pollers[key]

    async def _run(self) -> None:
        self._hook = AsyncHook(self._agenty_conn_id)
        with contextlib.closing(self._hook):
            async with asyncio.TaskGroup() as self._requests:
                await asyncio.sleep(min(GATHERING_SECONDS, self._poll_interval))
                while True:
                    began = time.monotonic()
                    try:
                        await self._poll()
                    except Exception:
                        log.exception("A poll of connection %r failed, the next one follows", self._agenty_conn_id)
                    # In a thread: the first metric of a process may look up a host or import a backend.
                    await self._hook.in_thread(self._count_poll)
                    await self._sleep(time.monotonic() - began)

    def _count_poll(self) -> None:
        metrics.count(metrics.POLLER_POLLS, **self._tags)
        told = None
        # The last waiter may leave meanwhile, and the event loop tells so: what is told last has to be true.
        while told != self._waiters:
            told = self._waiters
            metrics.gauge(metrics.POLLER_WAITERS, told, **self._tags)

    @abstractmethod
    async def _poll(self) -> None:
        """Ask Agenty, and pass the answers to the users."""

    async def _sleep(self, spent: float) -> None:
        """
        Sleep for what a poll left of the interval, or until the time of a waiter is up.

        It is longer where Agenty asks for it.
        """
        interval = jittered(self._poll_interval)
        # A server that is slow to answer is not asked without a pause.
        seconds = max(interval - spent, interval / 2)
        while seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_needed_now.wait()
            self._is_needed_now.clear()
            seconds = self._paused_until - time.monotonic()

    def _pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _heed_retry_after(self, error: AgentyError) -> None:
        if isinstance(error, AgentyUnavailableError) and error.retry_after is not None:
            self._pause(min(error.retry_after, MAX_RETRY_AFTER_SECONDS))

    async def _read_list(
        self, wanted: Collection[int], *, first_limit: int | None = None, down_to: float = math.inf
    ) -> AsyncIterator[JobList]:
        """
        Read the list of jobs page by page, and yield what it shows after each.

        :param wanted: The jobs to find. Pages are read as long as they may be cheaper than a request for each.
        :param first_limit: How many jobs to ask for first. Default: as many as the wanted ones probably need.
        :param down_to: Read at least until all jobs with a higher id than this are there.
        """
        listed, offset = JobList(), 0
        limit = first_limit or min(2 * len(wanted) + 20, JOBS_PER_PAGE)
        for pages in range(1, MAX_PAGES + 1):
            next_offset = listed.add(await self._hook.list_job_page(limit, offset))
            yield listed
            if next_offset is None:
                return
            missing = wanted - listed.jobs.keys()
            if listed.complete_after <= down_to and (pages >= len(missing) or listed.complete_after < min(missing)):
                return
            limit, offset = JOBS_PER_PAGE, next_offset

    def _next_to_ask_singly(self, job_ids: Collection[int], under_way: int = 0) -> list[int]:
        """Return a few of the jobs, so that each has its turn."""
        ordered = sorted(job_ids)
        turn = bisect.bisect_right(ordered, self._last_asked_singly)
        chosen = (ordered[turn:] + ordered[:turn])[: MAX_SINGLE_REQUESTS - under_way]
        self._last_asked_singly = chosen[-1] if chosen else self._last_asked_singly
        return chosen


class Waiter:
    """
    One trigger that waits. The poller hands it each answer and wakes it once only, when its wait is over.

    :param watch: Says when that is.
    """

    def __init__(self, watch: JobWatch) -> None:
        self.first_answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._watch = watch
        # What the watch logs belongs to the task of its trigger.
        self._context = contextvars.copy_context()

    def take(self, answer: Job | AgentyError) -> None:
        """Take the job, or why there was no answer."""
        if self.outcome.done():
            return
        try:
            outcome = self._context.run(self._watch.take, answer)
        except Exception as error:
            # What is wrong in one wait must not end the others.
            self.outcome.set_exception(error)
        else:
            if outcome is not None:
                self.outcome.set_result(outcome)
        if not self.first_answer.done():
            self.first_answer.set_result(None)


class JobPoller(SharedPoller):
    """Polls the jobs that triggers wait for."""

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        super().__init__(agenty_conn_id, poll_interval)
        self._waiters_by_job: dict[int, set[Waiter]] = {}
        self._asked_singly: set[int] = set()

    async def wait(self, watch: JobWatch) -> Outcome:
        """Wait until a watch says that waiting is over."""
        with self._in_use(), self._answers_for(watch) as waiter:
            # The job may have ended while no triggerer ran: it is asked for once, however late it is.
            await asyncio.wait([waiter.first_answer], timeout=max(watch.seconds_left, FIRST_ANSWER_SECONDS))
            if not waiter.outcome.done():
                await asyncio.wait([waiter.outcome], timeout=watch.seconds_left)
            if not waiter.outcome.done():
                # The job may have ended since the last poll.
                self._is_needed_now.set()
                await asyncio.wait([waiter.outcome], timeout=LAST_POLL_SECONDS)
            return waiter.outcome.result() if waiter.outcome.done() else watch.late_outcome()

    @contextlib.contextmanager
    def _answers_for(self, watch: JobWatch) -> Iterator[Waiter]:
        waiter, job_id = Waiter(watch), watch.job_id
        self._waiters_by_job.setdefault(job_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            self._waiters_by_job[job_id].discard(waiter)
            if not self._waiters_by_job[job_id]:
                del self._waiters_by_job[job_id]

    async def _poll(self) -> None:
        """Ask for each job, in as few requests as it takes."""
        missing = self._waiters_by_job.keys() - self._asked_singly
        try:
            if len(missing) > 1:
                async for listed in self._read_list(frozenset(missing)):
                    found = missing & listed.jobs.keys()
                    missing -= found
                    await self._pass_on({job_id: listed.jobs[job_id] for job_id in found})
        except AgentyError as error:
            if isinstance(error, AgentyAuthError) or not isinstance(error, FINAL_ERRORS):
                await self._fail(missing, error)
                return
            # It is about the list, and says nothing of the jobs: they are asked for one by one.
            log.debug("The list of jobs of connection %r can't be read: %s", self._agenty_conn_id, error)
        for job_id in self._next_to_ask_singly(missing, under_way=len(self._asked_singly)):
            # Not awaited: one job whose answer is slow must not hold up the others.
            self._asked_singly.add(job_id)
            self._requests.create_task(self._ask_singly(job_id))

    async def _ask_singly(self, job_id: int) -> None:
        try:
            await self._pass_on({job_id: await self._hook.get_job(job_id)})
        except AgentyError as error:
            # A wrong key is wrong for all.
            await self._fail(set(self._waiters_by_job) if isinstance(error, AgentyAuthError) else {job_id}, error)
        finally:
            self._asked_singly.discard(job_id)

    async def _fail(self, job_ids: Collection[int], error: AgentyError) -> None:
        self._heed_retry_after(error)
        await self._pass_on(dict.fromkeys(job_ids, error))

    async def _pass_on(self, answers: Mapping[int, Job | AgentyError]) -> None:
        # Jobs that are over come first: logging how far a thousand others are takes a while.
        over_first = sorted(answers.items(), key=lambda item: not (isinstance(item[1], Job) and item[1].is_terminal))
        for number, (job_id, answer) in enumerate(over_first, 1):
            for waiter in self._waiters_by_job.get(job_id, ()):
                waiter.take(answer)
            if number % WAITERS_AT_ONCE == 0:
                await asyncio.sleep(0)
        # Those whose wait is over leave before the next poll.
        await asyncio.sleep(0)
