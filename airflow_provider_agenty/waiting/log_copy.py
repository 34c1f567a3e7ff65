"""Copying a job's log into the task's, each entry once, whoever goes on with the wait."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from airflow_provider_agenty.airflow_compat import read_xcom, write_xcom
from airflow_provider_agenty.api.deadline import seconds_left, time_limit
from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import AgentyError
from airflow_provider_agenty.log import Log
from airflow_provider_agenty.waiting.async_hook import in_threads, open_hook, shared_threads
from airflow_provider_agenty.waiting.job_watch import JobWatch, jittered
from airflow_provider_agenty.waiting.outcome import Outcome
from airflow_provider_agenty.waiting.task_state import offset_in

if TYPE_CHECKING:
    from airflow_provider_agenty.hooks.agenty import AgentyHook

LOG_XCOM = "agenty_log"

ENTRIES_AT_ONCE = 2500
"""The largest number of entries that are copied between two polls."""

SECONDS_BETWEEN_READS = 1.0
"""Seconds between two reads of the rest of a log."""

MAX_SECONDS_FOR_REST = 600.0
"""Seconds for which the rest of a log may be copied once the job is over."""

MIN_SECONDS_FOR_REST = 5.0
"""Seconds for which a trigger may copy the rest even if the deadline of the wait has passed."""

MAX_SECONDS_PER_READ = 60.0
"""Seconds for which one thread of the triggerer may be busy with one log at a time."""

SECONDS_BETWEEN_STORES = 30.0
"""Minimum seconds between two stores of an offset: a triggerer stores for all its triggers one after another."""

_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
}

log = logging.getLogger(__name__)


def copy_entry(entry: LogEntry, log: Log) -> None:
    """Write an entry of a job's log into another log, at its level."""
    # Each line has the mark: one of an entry could look like another task's, or like Airflow's own.
    message = entry.message.replace("\n", "\n[Agenty]   ")
    log.log(_LEVELS.get(entry.level, logging.INFO), "[Agenty] %s %s", entry.moment, message)


class LogCopy:
    """
    Copies a job's log into another one bit by bit.

    :param iter_logs: Yields the entries of a job's log from an offset on, as :meth:`AgentyHook.iter_logs` does.
    :param offset: The number of lines that were copied before. Default 0.
    :param store: Is called with the number of copied lines each time there are more.
    """

    def __init__(
        self,
        iter_logs: Callable[..., Iterator[LogEntry]],
        job_id: int,
        log: Log,
        *,
        offset: int = 0,
        store: Callable[[int], None] = lambda _offset: None,
    ) -> None:
        self.offset = offset
        self._iter_logs = iter_logs
        self._job_id = job_id
        self._log = log
        self._store = store
        self._began: tuple[Any, int] = (None, offset)

    def follow(self, job: Job) -> None:
        """Copy what is new; of a job that is over all that is left, for ten minutes at most."""
        with time_limit(MAX_SECONDS_FOR_REST if job.is_terminal else math.inf):
            while self.catch_up() and job.is_terminal:
                if not seconds_left():
                    self.log_that_it_ends()
                    return
                time.sleep(SECONDS_BETWEEN_READS)

    def log_that_it_ends(self) -> None:
        """Log that there may be more entries than were copied."""
        self._log.warning(
            "The log of job %d was copied up to line %d. Read the rest in Agenty", self._job_id, self.offset
        )

    def catch_up(self) -> bool:
        """
        Copy what is new, at most :data:`ENTRIES_AT_ONCE` entries. After an error the next call goes on.

        :return: Whether there may be more.
        """
        before, copied = self.offset, 0
        try:
            for entry in itertools.islice(self._new_entries(), ENTRIES_AT_ONCE):
                copy_entry(entry, self._log)
                self.offset = entry.next_offset
                copied += 1
        except AgentyError as error:
            self._log.warning("The log of job %d could not be read, trying again: %s", self._job_id, error)
            copied = 0
        if self.offset > before:
            self._store(self.offset)
        return copied == ENTRIES_AT_ONCE

    def _new_entries(self) -> Iterator[LogEntry]:
        entries = self._iter_logs(self._job_id, offset=self.offset)
        first = next(entries, None)
        # A server that skips no lines would send the same ones for ever.
        begins = None if first is None or first.timestamp is None else (first.timestamp, first.message)
        if first is None or (begins and begins == self._began[0] and self.offset > self._began[1]):
            return
        self._began = begins, self.offset
        yield first
        yield from entries


class TriggerLogCopy(LogCopy):
    """
    Copies a job's log beside the wait of a trigger.

    It stores in an XCom of the task how far it is. A trigger can't reach the task state store (seen on Airflow 3.3.2).
    XComs it can reach, and they live as long as the try, so they outlive a triggerer. An XCom that can't be read or
    written costs repeated lines, never the wait.

    :param task_instance: The task instance that waits; ``None`` (in ``dag.test``): nothing is stored.
    """

    def __init__(self, agenty_conn_id: str, job_id: int, log: Log, *, offset: int, task_instance: Any) -> None:
        super().__init__(self._iter_logs_of_hook, job_id, log, offset=offset)
        self._agenty_conn_id = agenty_conn_id
        self._hook: AgentyHook | None = None
        # Apart from those of the polls: a slow log must not hold up the polls.
        self._threads = shared_threads("logs", agenty_conn_id)
        self._task_instance = task_instance
        # Nobody clears the XComs of a try that no worker ran.
        self._of = {"job_id": job_id, "try_number": getattr(task_instance, "try_number", None)}
        self._stored_offset = offset
        self._stored_at = -math.inf

    async def beside(self, waiting: Coroutine[Any, Any, Outcome], watch: JobWatch, *, poll_interval: float) -> Outcome:
        """Copy while the trigger waits, and what is left after the job's end, as long as there is time."""
        is_over = asyncio.Event()
        copying = asyncio.create_task(self._copy_until(is_over, poll_interval))
        try:
            outcome = await waiting
            is_over.set()
            if outcome.job is not None and outcome.job.is_terminal:
                seconds = min(MAX_SECONDS_FOR_REST, max(watch.seconds_left, MIN_SECONDS_FOR_REST))
                await asyncio.wait([copying], timeout=seconds)
                if copying.done():
                    copying.result()
                else:
                    self.log_that_it_ends()
            return dataclasses.replace(outcome, log_offset=self.offset)
        finally:
            copying.cancel()

    async def _copy_until(self, is_over: asyncio.Event, poll_interval: float) -> None:
        self.offset = max(self.offset, await self._read_offset())
        with contextlib.ExitStack() as opened:
            has_rest = True
            while has_rest:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(jittered(poll_interval)):
                        await is_over.wait()
                # A read that began before the end may miss the last lines.
                has_rest = not is_over.is_set()
                if self._hook is None:
                    try:
                        self._hook = opened.enter_context(await open_hook(self._agenty_conn_id))
                    except Exception as error:
                        self._log.warning("The log of job %d could not be read, trying again: %s", self._job_id, error)
                        continue
                await self._store_offset()
                while await self._catch_up_in_thread() and is_over.is_set():
                    await asyncio.sleep(SECONDS_BETWEEN_READS)
                    await self._store_offset()

    async def _catch_up_in_thread(self) -> bool:
        def catch_up() -> bool:
            with time_limit(MAX_SECONDS_PER_READ):
                return self.catch_up()

        return await in_threads(self._threads, catch_up)

    def _iter_logs_of_hook(self, job_id: int, *, offset: int) -> Iterator[LogEntry]:
        return iter(()) if self._hook is None else self._hook.iter_logs(job_id, offset=offset)

    async def _read_offset(self) -> int:
        """Return how many lines an earlier trigger of this try copied."""
        if self._task_instance is None:
            return 0
        try:
            stored = await sync_to_async(read_xcom)(self._task_instance, LOG_XCOM)
        except Exception as error:
            log.warning("The position in the job's log could not be read: %s", error)
            return 0
        return offset_in(stored, self._of)

    async def _store_offset(self) -> None:
        """
        Store how many lines are copied, unless that was done a moment ago.

        Called before a read, not after it. A triggerer that is killed loses the lines that it has just written. They
        are to come twice rather than not at all.
        """
        offset, now = self.offset, time.monotonic()
        if self._task_instance is None or offset == self._stored_offset:
            return
        if now < self._stored_at + SECONDS_BETWEEN_STORES:
            return
        self._stored_at = now
        try:
            await sync_to_async(write_xcom)(self._task_instance, LOG_XCOM, {**self._of, "offset": offset})
        except Exception as error:
            log.warning("The position in the job's log could not be stored: %s", error)
        else:
            self._stored_offset = offset
