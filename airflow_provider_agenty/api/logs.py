"""The lines a job logged."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_agenty.api.deadline import time_limit
from airflow_provider_agenty.api.validation import LONGEST_TEXT, clean_text, read_moment
from airflow_provider_agenty.exceptions import AgentyError

if TYPE_CHECKING:
    from airflow_provider_agenty.api.request import Transport

log = logging.getLogger(__name__)

LOG_PAGE = 2500
_TELLING_LINES = 10
_LAST_ENTRIES_SECONDS = 60.0
_ENTRY = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})?)\s+([A-Za-z]{1,20})(?:\s(.*))?"
)


@dataclass(frozen=True)
class LogEntry:
    """
    One entry of a job's log.

    :param timestamp: When, aware (UTC); ``None`` where the log was read from the middle of an entry.
    :param level: As Agenty writes it, in upper case: ``INFO``, ``WARN``, ``ERROR``, …
    :param message: The text; it may have several lines.
    :param next_offset: The number of log lines up to the end of this entry: the offset to go on from.
    """

    timestamp: datetime | None
    level: str
    message: str
    next_offset: int = 0

    @property
    def moment(self) -> str:
        """The timestamp as Agenty writes it, to the millisecond; a dash where there is none."""
        return self.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z") if self.timestamp else "-"

    def __str__(self) -> str:
        return f"{self.moment} {self.level} {self.message}"


def iter_logs(transport: Transport, job_id: int, *, offset: int) -> Iterator[LogEntry]:
    """Yield the entries of a job's log, from a line on (``GET /jobs/{job_id}/logs``)."""
    return read_entries(_iter_lines(transport, job_id, offset), offset=offset, key=transport.settings.key)


def last_entries(transport: Transport, job_id: int, *, count: int) -> list[LogEntry]:
    """Return the last entries of a job's log, as far as it can be read within a minute; nothing is raised."""
    entries: deque[LogEntry] = deque(maxlen=count)
    try:
        with time_limit(_LAST_ENTRIES_SECONDS):
            entries.extend(iter_logs(transport, job_id, offset=0))
    except AgentyError as error:
        log.warning("The log of job %s could not be read to its end: %s", job_id, error)
    return list(entries)


def _iter_lines(transport: Transport, job_id: int, offset: int) -> Iterator[str]:
    # Nothing says how many lines there are, and the server may give fewer than asked for. So the end is an empty page.
    # A page that begins like the one before comes from a server that skips no lines.
    beginning: list[str] = []
    while True:
        answer = transport.read(f"/jobs/{job_id}/logs", {"offset": offset, "limit": LOG_PAGE})
        # A log may hold the pages that were scraped: what is further down may well begin like one.
        if answer.says_html or (offset == 0 and answer.is_whole_page):
            raise answer.unexpected("is HTML, not a log")
        lines = split_lines(answer.body)
        if not lines or lines[:_TELLING_LINES] == beginning:
            return
        beginning = lines[:_TELLING_LINES]
        yield from lines
        offset += len(lines)


def read_entries(lines: Iterable[str], *, offset: int, key: str = "") -> Iterator[LogEntry]:
    """Put lines together to entries: a line that does not begin like one belongs to the entry before it."""
    entry: LogEntry | None = None
    parts: list[str] = []
    length = 0

    def finished(begun: LogEntry) -> LogEntry:
        return replace(begun, message=clean_text("\n".join(parts), key=key, lines=True))

    for number, line in enumerate(lines, start=offset + 1):
        begun = _begin_entry(line, number)
        if begun is None and entry is not None:
            entry = replace(entry, next_offset=number)
            # A longer text would be cut off again.
            if length <= LONGEST_TEXT:
                parts.append(line)
                length += len(line)
            continue
        if entry is not None:
            yield finished(entry)
        entry = begun or LogEntry(timestamp=None, level="INFO", message=line, next_offset=number)
        parts, length = [entry.message], len(entry.message)
    if entry is not None:
        yield finished(entry)


def split_lines(body: bytes) -> list[str]:
    """Return the lines of a page of a log; only line feeds end a line, a last one ends the page."""
    text = body.decode("utf-8", errors="replace").removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")] if body else []


def _begin_entry(line: str, number: int) -> LogEntry | None:
    matched = _ENTRY.fullmatch(line)
    moment = read_moment(matched[1]) if matched else None
    if matched is None or moment is None:
        return None
    return LogEntry(timestamp=moment, level=matched[2].upper(), message=matched[3] or "", next_offset=number)
