"""The ways in which Agenty fails, each with a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from airflow_provider_agenty.sandbox import Fault
from tests.sandbox_faults import Reset, SlowBody

START = ("POST", "/jobs/start")
LIST = ("GET", "/jobs")
POLL = ("GET", "/jobs/*")
STOP = ("GET", "/jobs/*/stop")
LINK = ("GET", "/jobs/*/export")
ROWS = ("GET", "/jobs/*/result")
LOGS = ("GET", "/jobs/*/logs")
INPUT = ("PUT", "/inputs/*")
DOWNLOAD = ("GET", "/**")


@dataclass(frozen=True)
class Trouble:
    """
    :param make: makes the fault; ``None``: all links that were given out expire.
    """

    name: str
    weight: int
    make: Callable[[Random], Fault | None]


def _drops(kind: tuple[str, str], when: str) -> Callable[[Random], Fault]:
    return lambda chance: Fault(*kind, drop=when, times=chance.randint(1, 2))


def _is_reset(kind: tuple[str, str], when: str) -> Callable[[Random], Fault]:
    return lambda chance: Reset(*kind, drop=when, times=chance.randint(1, 2))


def _refuses(kind: tuple[str, str], *, acted: bool = False, most: int = 3) -> Callable[[Random], Fault]:
    def make(chance: Random) -> Fault:
        status = chance.choice([500, 502, 503, 504]) if acted else chance.choice([429, 429, 500, 502, 503])
        headers = {"Retry-After": "1"} if status in (429, 503) else {}
        return Fault(*kind, status=status, headers=headers, acted=acted, times=chance.randint(1, most))

    return make


def _is_slow(kind: tuple[str, str]) -> Callable[[Random], Fault]:
    # Less than the connection's timeout: what arrives after its sender has given up is where the promise ends.
    return lambda chance: Fault(
        *kind, delay_before=chance.uniform(0, 1.5), delay_after=chance.uniform(0, 1.5), times=chance.randint(1, 6)
    )


def _cut(chance: Random) -> Fault:
    return Fault(*DOWNLOAD, host="downloads", cut=chance.randint(0, 60_000), times=chance.randint(1, 3))


def _slow_download(chance: Random) -> Fault:
    speed = chance.randint(20_000, 100_000)
    return SlowBody(*DOWNLOAD, host="downloads", bytes_per_second=speed, times=chance.randint(1, 3))


def _refused_download(chance: Random) -> Fault:
    return Fault(*DOWNLOAD, host="downloads", status=chance.choice([403, 429, 500, 503]), times=chance.randint(1, 2))


TROUBLES = (
    Trouble("the answer to a start is lost", 5, _drops(START, "after")),
    Trouble("the answer to a start is reset", 2, _is_reset(START, "after")),
    Trouble("a start is answered 5xx though it was acted on", 3, _refuses(START, acted=True)),
    Trouble("a start is lost", 3, _drops(START, "before")),
    Trouble("a start is refused", 2, _refuses(START)),
    Trouble("a start is slow", 3, _is_slow(START)),
    Trouble("the list of jobs is not answered", 2, _drops(LIST, "before")),
    Trouble("the list of jobs is refused", 3, _refuses(LIST)),
    Trouble("the list of jobs is slow", 1, _is_slow(LIST)),
    Trouble("a poll is not answered", 2, _drops(POLL, "before")),
    Trouble("a poll is refused", 3, _refuses(POLL)),
    Trouble("a poll is slow", 1, _is_slow(POLL)),
    Trouble("the answer to a stop is lost", 2, _drops(STOP, "after")),
    # A job over its budget is stopped by one of three attempts, or goes on.
    Trouble("a stop is refused", 1, _refuses(STOP, most=2)),
    Trouble("an input is not answered", 1, _drops(INPUT, "after")),
    Trouble("a link is refused", 2, _refuses(LINK)),
    Trouble("the count of rows is refused", 1, _refuses(ROWS)),
    Trouble("a log is refused", 1, _refuses(LOGS)),
    Trouble("a download is cut", 5, _cut),
    Trouble("a download is slow", 3, _slow_download),
    Trouble("a download is refused", 2, _refused_download),
    Trouble("all links expire", 1, lambda chance: None),
)
