"""
One deadline for all that is asked within a block, however many requests, retries and pages that takes.

A read timeout bounds the wait for the next byte only: a server that sends a byte now and then keeps a request for ever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ends: ContextVar[float] = ContextVar("agenty_deadline", default=math.inf)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let no request that this thread or asyncio task makes in the block outlast it; a tighter limit stays in force."""
    token = _ends.set(min(_ends.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _ends.reset(token)


def seconds_left() -> float:
    """Return how much time the limits in force leave, at least 0; infinite if there is none."""
    return max(_ends.get() - time.monotonic(), 0.0)
