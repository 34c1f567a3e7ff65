"""Calls in threads that nobody has to wait for: neither who gave them up, nor the end of the process."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_background(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call a function in a thread of its own. The end of the process waits for a ThreadPoolExecutor's, not for it."""
    future: Future[T] = Future()
    context = contextvars.copy_context()  # with the deadline in force

    def run() -> None:
        try:
            future.set_result(context.run(function, *args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="agenty-result", daemon=True).start()
    return future
