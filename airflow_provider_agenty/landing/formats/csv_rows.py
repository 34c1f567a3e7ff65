"""Rows as CSV, whatever columns they have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_agenty.landing.formats.json_lines import text_of
from airflow_provider_agenty.landing.formats.row_spool import Page, row_spool
from airflow_provider_agenty.log import Log

_MOST_COLUMNS = 10_000
_VALUES_AT_ONCE = 10_000


class CsvRows:
    """
    Rows as RFC 4180 has them: UTF-8, commas, CR LF, quotes where they are needed, a header.

    The columns are those of all rows, in the order in which they first appear. A value that is missing or null is
    empty, one that is no text is written as JSON. Without any row there is no column, and so no header: no byte at all.
    """

    def __init__(self, pages: Iterable[Page], *, log: Log, spool_folder: str | None) -> None:
        self._pages = pages
        self._log = log
        self._spool_folder = spool_folder
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        """Give the header and the rows, in chunks."""
        with row_spool(self._spool_folder, _MOST_COLUMNS, self._log) as spool:
            for page in spool.keep(self._pages):
                self.rows += len(page)
            columns = list(spool.columns)
            if self.rows:
                yield _lines([columns])
            for rows in spool.groups(max(1, _VALUES_AT_ONCE // max(1, len(columns)))):
                yield _lines([text_of(row.get(name)) for name in columns] for row in rows)


def _lines(rows: Iterable[Sequence[str | None]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
