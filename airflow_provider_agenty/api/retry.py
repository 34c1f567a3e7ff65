"""The one retry policy: which failed calls are made again, how often and after how long."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_agenty.api.deadline import seconds_left
from airflow_provider_agenty.exceptions import AgentyUnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """
    Exponential backoff with full jitter, bounded in number and time, and never beyond a deadline in force.

    :param max_attempts: How often a call is made, the first time counted.
    :param first_wait: The longest wait before the second attempt, in seconds; it doubles with each further one.
    :param longest_wait: The longest wait between two attempts, in seconds.
    :param longest_asked_wait: The longest wait that Agenty may ask for by ``Retry-After``, in seconds.
    :param total: Seconds after which no further attempt begins.
    """

    max_attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 30.0
    longest_asked_wait: float = 120.0
    total: float = 600.0

    def call(self, function: Callable[[], T], *, again_if: Callable[[AgentyUnavailableError], bool]) -> T:
        """Return what a function returns, calling it again after a failure that allows that; raise the last one."""
        ends = time.monotonic() + self.total
        for attempt in itertools.count(1):
            try:
                return function()
            except AgentyUnavailableError as error:
                wait = self._seconds_to_wait(attempt, error)
                left = min(ends - time.monotonic(), seconds_left())
                if attempt >= self.max_attempts or wait >= left or not again_if(error):
                    raise
                log.warning("%s; attempt %d, trying again in %.1f s", error, attempt, wait)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _seconds_to_wait(self, attempt: int, error: AgentyUnavailableError) -> float:
        longest = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 64))
        backoff = random.uniform(0.0, longest)  # noqa: S311 - no secret
        if error.retry_after is None:
            return backoff
        # A little later than asked, and not all at once.
        return min(error.retry_after, self.longest_asked_wait) + min(backoff, 1.0)
