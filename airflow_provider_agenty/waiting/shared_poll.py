"""What triggers share that ask Agenty the same: one task of the event loop, which asks for all of them."""

from __future__ import annotations

import asyncio
import contextvars
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Self, cast
from weakref import WeakKeyDictionary

from airflow_provider_agenty.exceptions import AgentyError, AgentyUnavailableError
from airflow_provider_agenty.waiting.asking import Asking
from airflow_provider_agenty.waiting.job_watch import jittered

REQUESTS_AT_ONCE = 4
"""How many requests of a poll may be under way."""

GATHERING_SECONDS = 0.5
"""How long a new poll waits for others to join before it asks for the first time."""

LONGEST_ASKED_WAIT = 300.0
"""How long Agenty may make a poll wait by ``Retry-After``, in seconds."""

JOBS_PER_PAGE = 1000

MOST_PAGES = 50
"""How many pages of the list of jobs one round reads at most."""

MOST_ASKED_SINGLY = 100
"""How many jobs that the list does not show are asked for by themselves at a time."""


class Turns:
    """Takes a few of many jobs at a time, so that each has its turn."""

    def __init__(self) -> None:
        self._had_one: dict[int, None] = {}

    def take(self, job_ids: Collection[int], most: int) -> list[int]:
        """
        Return those that never had a turn, or had it the longest time ago.

        :param job_ids: The jobs to choose from.
        :param most: How many.
        """
        had_one = [job_id for job_id in self._had_one if job_id in job_ids]
        queue = [*(job_id for job_id in job_ids if job_id not in self._had_one), *had_one]
        self._had_one = dict.fromkeys([*had_one, *queue[:most]])
        for job_id in queue[:most]:
            self._had_one[job_id] = self._had_one.pop(job_id)
        return queue[:most]


class SharedPoll(ABC):
    """
    Asks Agenty in rounds, with one connection and one interval, for all who take part in it. Use :meth:`shared`.

    :param agenty_conn_id: The connection.
    :param poll_interval: Seconds between two rounds.
    """

    _pollers: ClassVar[
        WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[type[SharedPoll], str, float], SharedPoll]]
    ] = WeakKeyDictionary()

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._poll_interval = poll_interval
        self._paused_until = 0.0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def shared(cls, agenty_conn_id: str, poll_interval: float) -> Self:
        """
        Return the poll of this kind that the event loop has for a connection and an interval.

        :param agenty_conn_id: The connection.
        :param poll_interval: Seconds between two rounds.
        """
        pollers = SharedPoll._pollers.setdefault(asyncio.get_running_loop(), {})
        key = (cls, agenty_conn_id, poll_interval)
        if key not in pollers:
            pollers[key] = cls(agenty_conn_id, poll_interval)
        return cast(Self, pollers[key])

    @abstractmethod
    async def _round(self, asking: Asking) -> None:
        """Ask, and tell those who take part."""

    @abstractmethod
    def _broke(self, error: BaseException) -> None:
        """See to it that nobody waits for a poll that broke."""

    @abstractmethod
    def _ended(self) -> None:
        """Tidy up what rounds have left under way."""

    def _start(self) -> None:
        if self._task is None:
            # A context of its own: what the poll logs belongs to no single task.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
            self._task.add_done_callback(self._tell_if_broken)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _forget(self) -> None:
        """Let the next one who asks for a poll of this kind have a new one."""
        pollers = SharedPoll._pollers.get(asyncio.get_running_loop(), {})
        key = (type(self), self._agenty_conn_id, self._poll_interval)
        if pollers.get(key) is self:
            del pollers[key]

    async def _run(self) -> None:
        executor = ThreadPoolExecutor(max_workers=REQUESTS_AT_ONCE, thread_name_prefix="agenty-poller")
        asking = Asking(self._agenty_conn_id, executor)
        try:
            await asyncio.sleep(min(GATHERING_SECONDS, self._poll_interval))
            while True:
                began = time.monotonic()
                await self._round(asking)
                await self._sleep(time.monotonic() - began)
        finally:
            self._ended()
            executor.shutdown(wait=False, cancel_futures=True)
            asking.close()

    async def _sleep(self, spent: float) -> None:
        """Sleep for what a round that took so long left of the interval, or longer where Agenty asks for it."""
        interval = jittered(self._poll_interval)
        # A server that is slow to answer is not asked without a pause.
        seconds = max(interval - spent, interval / 2)
        while seconds > 0:
            await asyncio.sleep(seconds)
            seconds = self._paused_until - time.monotonic()

    def _pause_if_asked_to(self, error: AgentyError) -> None:
        if isinstance(error, AgentyUnavailableError) and error.retry_after is not None:
            self._pause(min(error.retry_after, LONGEST_ASKED_WAIT))

    def _pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _tell_if_broken(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broke(error)
