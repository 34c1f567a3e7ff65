"""The lines a job logged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_provider_agenty.api.validation import LONGEST_TEXT, Clean, clean_text, read_moment

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


def _clean_lines(text: str) -> str:
    return clean_text(text, lines=True)


def read_entries(lines: Iterable[str], *, offset: int, clean: Clean = _clean_lines) -> Iterator[LogEntry]:
    """
    Put lines together to entries: a line that does not begin like one belongs to the entry before it.

    :param lines: The lines, without their ends.
    :param offset: The number of the first line.
    :param clean: Makes the text of an entry, with all its lines, one that can go on. Default: without looking for the
        API key.
    """
    entry: LogEntry | None = None
    parts: list[str] = []
    length = 0

    def finished(begun: LogEntry) -> LogEntry:
        return replace(begun, message=clean("\n".join(parts)))

    for number, line in enumerate(lines, start=offset + 1):
        begun = _begin_entry(line, number)
        if begun is None and entry is not None:
            entry = replace(entry, next_offset=number)
            # What is beyond would be cut off again.
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
    text = body.decode("utf-8", errors="replace")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _begin_entry(line: str, number: int) -> LogEntry | None:
    matched = _ENTRY.fullmatch(line)
    if matched is None:
        return None
    moment = read_moment(matched[1])
    if moment is None:
        return None
    return LogEntry(timestamp=moment, level=matched[2].upper(), message=matched[3] or "", next_offset=number)
