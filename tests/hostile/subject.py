"""The process that makes the calls: what hangs, or eats the memory, is ended with it and not with the tests."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from airflow_provider_agenty.hooks.agenty import AgentyHook
from tests.hostile.calls import CALLS, LOGGING, Stage
from tests.hostile.promise import Outcome, broken_promises

SECONDS = 20.0
"""How long a call may take. Each waits for a second or two at the most; the rest is for slow machines."""

MEBIBYTES = 300.0
"""How much more memory a call may take."""


LONGEST_SLEEP = 300.0
"""For how many seconds a call may sleep at once, whatever Agenty asks for."""


@dataclass(frozen=True)
class Report:
    """What came of a call: the promises that it broke, and how it ended."""

    broken: tuple[str, ...]
    ended: str
    is_alive: bool = True


class Subject:
    """
    A child process that makes one call after another, and is replaced by a new one where it has to be killed.

    :param make_context: Makes the context of a task, for operators.
    """

    def __init__(self, make_context: Callable[..., dict[str, Any]]) -> None:
        self._make_context = make_context
        self._process: Any = None

    def make(self, call: str, connection: str, *, seconds: float = SECONDS) -> Report:
        """
        Make a call, and say which promises it broke.

        :param call: Its name in the table of calls.
        :param connection: The Airflow connection, as JSON.
        :param seconds: How long it may take.
        """
        if self._process is None:
            self._begin()
        memory = psutil.Process(self._process.pid)
        before = memory.memory_info().rss
        ends = time.monotonic() + seconds
        self._pipe.send((call, connection))
        while not self._pipe.poll(0.02):
            if not self._process.is_alive():
                return self._killed("the process died")
            more = (memory.memory_info().rss - before) / 2**20
            if more > MEBIBYTES:
                return self._killed(f"it took more than {MEBIBYTES:.0f} MiB of memory")
            if time.monotonic() > ends:
                return self._killed(f"it did not end in {seconds:.0f} s")
        try:
            return Report(*self._pipe.recv())
        except EOFError:
            return self._killed("the process died")

    def _begin(self) -> None:
        # A fork has what the fixtures of the tests have set; and importing Airflow anew would take seconds.
        processes = multiprocessing.get_context("fork")
        self._pipe, theirs = processes.Pipe()
        self._process = processes.Process(target=_serve, args=(theirs, self._make_context), daemon=True)
        self._process.start()
        theirs.close()

    def _killed(self, why: str) -> Report:
        self.close()
        return Report((why,), why, is_alive=False)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _serve(pipe: Any, make_context: Callable[..., dict[str, Any]]) -> None:
    for kind in LOGGING:
        # Airflow's versions log in different ways: this one is heard.
        kind.log = logging.getLogger(f"airflow_provider_agenty.{kind.__name__}")
    heard, sleeps = _Heard(), _Sleeps()
    # How long the waits between attempts are has tests of its own.
    time.sleep = sleeps
    root = logging.getLogger()
    root.handlers = [heard]
    root.setLevel(logging.DEBUG)
    for name in [name for name in logging.root.manager.loggerDict if name.startswith(("airflow", "urllib3"))]:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.disabled = [], True, False
        logger.setLevel(logging.NOTSET)
    with tempfile.TemporaryFile("w+b") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False, errors="backslashreplace")
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            while True:
                name, connection = pipe.recv()
                heard.records, sleeps.longest = [], 0.0
                printed.seek(0)
                printed.truncate()
                with _folder() as folder:
                    outcome = _make(name, connection, Path(folder), make_context)
                    outcome.records = heard.records
                    sys.stdout.flush()
                    printed.seek(0)
                    outcome.printed = printed.read().decode(errors="replace")
                    broken = tuple(dict.fromkeys(broken_promises(outcome)))[:5]
                    if sleeps.longest > LONGEST_SLEEP:
                        broken += (f"it sleeps for {sleeps.longest:.0f} s",)
                error = outcome.error
                pipe.send((broken, type(error).__name__ if error is not None else "a value"))
                del outcome, error
    os._exit(0)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    parent = tempfile.mkdtemp(prefix="agenty-hostile-")
    folder = Path(parent, "lake")
    folder.mkdir()
    try:
        yield str(folder)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _make(name: str, connection: str, folder: Path, make_context: Callable[..., dict[str, Any]]) -> Outcome:
    os.environ["AIRFLOW_CONN_AGENTY_DEFAULT"] = connection
    call = CALLS[name]
    outcome = Outcome(folder=folder, has_text=call.has_text)
    with AgentyHook() as hook:
        stage = Stage(hook, folder, make_context, outcome.stored)
        try:
            outcome.value = call.run(stage)
        except BaseException as error:
            outcome.error = error
    return outcome


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.records) < 20_000:
            self.records.append(record)


class _Sleeps:
    """Sleeps briefly, and keeps how long it was asked to."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._sleep = time.sleep

    def __call__(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self._sleep(min(seconds, 0.01))
