"""The one retry policy: which failed calls are made again, how often and after how long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from airflow_provider_agenty.api.deadline import seconds_left
from airflow_provider_agenty.exceptions import AgentyUnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """
    Exponential backoff with full jitter, bounded in number and time, and never beyond a deadline in force.

    :param max_attempts: The number of times that a call is made, the first one counted.
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

    def call(
        self,
        function: Callable[[], T],
        *,
        again_if: Callable[[AgentyUnavailableError], bool],
        sleep: Callable[[float], None] | None = None,
    ) -> T:
        """
        Return what the function returns, calling it again when it fails in a way that may pass.

        :param function: The call.
        :param again_if: Whether a failure allows another attempt.
        :param sleep: Waits so many seconds; the default is :func:`time.sleep`.
        :raises AgentyError: what the last attempt raised.
        """
        retrying = tenacity.Retrying(
            stop=(
                tenacity.stop_after_attempt(self.max_attempts)
                | tenacity.stop_before_delay(self.total)
                | _StopAtDeadline()
            ),
            wait=self._seconds_to_wait,
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, AgentyUnavailableError) and again_if(error)
            ),
            before_sleep=_log_wait,
            reraise=True,
        )
        if sleep is not None:
            retrying.sleep = sleep
        return retrying(function)

    def _seconds_to_wait(self, state: tenacity.RetryCallState) -> float:
        backoff = tenacity.wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait)(state)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, AgentyUnavailableError) else None
        if asked is None:
            return backoff
        # A little later than asked, and not all at once.
        return min(asked, self.longest_asked_wait) + min(backoff, 1.0)


class _StopAtDeadline(tenacity.stop.stop_base):
    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return retry_state.upcoming_sleep >= seconds_left()


def _log_wait(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0.0
    log.warning("%s; attempt %d, trying again in %.1f s", error, state.attempt_number, seconds)
