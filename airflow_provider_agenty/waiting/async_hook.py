"""The hook's calls for triggers: each in a thread, so that the event loop is never blocked."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from asgiref.sync import sync_to_async

from airflow_provider_agenty import metrics
from airflow_provider_agenty.exceptions import AgentyAuthError, AgentyError, AgentyUnavailableError

if TYPE_CHECKING:
    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.api.pages import JobPage
    from airflow_provider_agenty.hooks.agenty import AgentyHook

REQUESTS_AT_ONCE = 4

log = logging.getLogger(__name__)

T = TypeVar("T")

_threads: WeakValueDictionary[tuple[str, str], ThreadPoolExecutor] = WeakValueDictionary()


def shared_threads(purpose: str, agenty_conn_id: str) -> ThreadPoolExecutor:
    """
    Return the threads that all triggers of a connection share for a purpose. They end when nobody holds them.

    One pool for all connections would let an account that hangs hold up the others.
    """
    key = purpose, agenty_conn_id
    threads = _threads.get(key) or ThreadPoolExecutor(REQUESTS_AT_ONCE, f"agenty-{purpose}")
    _threads[key] = threads
    return threads


async def in_threads(threads: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> T:
    """Make a call in one of the threads, in the context of the trigger that waits: its log lines find their task so."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(threads, context.run, call, *arguments)


async def open_hook(agenty_conn_id: str) -> AgentyHook:
    """Return a hook that has read its connection, so that it can be used in any thread."""
    # Seen on Airflow 3.0 and 3.1: the triggerer dies ("Response read out of order") when a connection is read in a
    # thread that asgiref did not start. There the answer is awaited in a second event loop.
    return await sync_to_async(_open_hook)(agenty_conn_id)


def _open_hook(agenty_conn_id: str) -> AgentyHook:
    # Here in a thread: importing requests would stall the event loop.
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    hook = AgentyHook(agenty_conn_id)
    _ = hook.settings
    return hook


class AsyncHook:
    """
    A few of the hook's calls, for a poller.

    A failed call is not repeated: the next poll does that. Each raises an :class:`AgentyError`, also for what the hook
    does not expect, such as a secrets backend that is away.
    """

    def __init__(self, agenty_conn_id: str) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._executor = ThreadPoolExecutor(max_workers=REQUESTS_AT_ONCE, thread_name_prefix="agenty-poller")
        self._hook: AgentyHook | None = None
        self._opening = asyncio.Lock()
        self._unexpected: type[Exception] | None = None

    async def get_job(self, job_id: int) -> Job:
        """Return a job as it is now."""
        return await self._call(lambda hook: hook.get_job(job_id))

    async def list_job_page(self, limit: int, offset: int) -> JobPage:
        """Return one page of the list of all jobs."""
        return await self._call(lambda hook: hook.list_job_page(limit=limit, offset=offset))

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Make a call in a thread of this poller: others' threads may be busy with an account that hangs."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Close the connections to Agenty, and let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._hook is not None:
            self._hook.close()

    async def _call(self, call: Callable[[AgentyHook], T]) -> T:
        try:
            answer = await self._call_with_current_key(call)
        except Exception as error:
            metrics.count(metrics.POLLER_FAILURES, conn_id=self._agenty_conn_id)
            if isinstance(error, AgentyError):
                raise
            # Once: a poller would fill the log with the same trace.
            level = logging.DEBUG if type(error) is self._unexpected else logging.WARNING
            log.log(level, "Agenty could not be asked", exc_info=True)
            self._unexpected = type(error)
            raise AgentyUnavailableError(
                f"Agenty could not be asked ({type(error).__name__}); see the triggerer's log"
            ) from None
        self._unexpected = None
        return answer

    async def _call_with_current_key(self, call: Callable[[AgentyHook], T]) -> T:
        hook = self._hook
        if hook is not None:
            # The key may have been replaced meanwhile: the connection is read again, once.
            with contextlib.suppress(AgentyAuthError):
                return await self._ask(call, hook)
        return await self._ask(call, await self._hook_other_than(hook))

    async def _ask(self, call: Callable[[AgentyHook], T], hook: AgentyHook) -> T:
        def counted_call() -> T:
            metrics.count(metrics.POLLER_REQUESTS, conn_id=self._agenty_conn_id)
            return call(hook)

        return await self.in_thread(counted_call)

    async def _hook_other_than(self, refused: AgentyHook | None) -> AgentyHook:
        async with self._opening:
            if self._hook is None or self._hook is refused:
                if self._hook is not None:
                    self._hook.close()
                    self._hook = None
                self._hook = (await open_hook(self._agenty_conn_id)).without_retries()
            return self._hook
