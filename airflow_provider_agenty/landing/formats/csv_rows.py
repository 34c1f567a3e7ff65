"""Rows as CSV, whatever columns they have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_agenty.landing.formats.json_lines import Page, text_of
from airflow_provider_agenty.landing.formats.row_spool import row_spool
from airflow_provider_agenty.log import Log

_MOST_COLUMNS = 10_000
_VALUES_AT_ONCE = 10_000


def csv_rows(pages: Iterable[Page], log: Log, spool_folder: str | None) -> Iterator[bytes]:
    """
    Give rows as RFC 4180 has them: UTF-8, commas, CR LF, quotes where they are needed, a header.

    The columns are those of all rows, in the order in which they first appear. A value that is missing or null is
    empty, one that is no text is written as JSON. Without any row there is no column, and so no header: no byte at all.
    """
    with row_spool(spool_folder, _MOST_COLUMNS, log) as spool:
        count = sum(len(page) for page in spool.keep(pages))
        columns = list(spool.columns)
        if count:
            yield _lines([columns])
        for rows in spool.groups(max(1, _VALUES_AT_ONCE // max(1, len(columns)))):
            yield _lines([text_of(row.get(name)) for name in columns] for row in rows)


def _lines(rows: Iterable[Sequence[str | None]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
