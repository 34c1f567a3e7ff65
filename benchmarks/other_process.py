"""A server in a process of its own, so that what it takes is not measured with the client."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any


class Remote:
    """The methods of an object in another process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self._pipe.send((name, arguments))
            return self._pipe.recv()

        return call


@contextmanager
def in_another_process(kind: Callable[..., Any], *arguments: Any) -> Iterator[Remote]:
    """Make an object in a process of its own, which lives as long as the block."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_serve, args=(theirs, kind, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Remote(ours)
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    served = kind(*arguments)
    while True:
        name, given = pipe.recv()
        pipe.send(getattr(served, name)(*given))
