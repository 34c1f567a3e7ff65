"""Rows as CSV, whatever columns they have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_agenty.landing.formats_json import text_of, without_lone_surrogates
from airflow_provider_agenty.landing.formats_spool import row_spool
from airflow_provider_agenty.log import Log

_CHUNK = 256 * 1024  # characters


class CsvRows:
    """
    Rows as RFC 4180 has them: UTF-8, commas, CR LF, quotes where they are needed, a header.

    The columns are those of all rows, in the order in which they first appear. A value that is missing or null is
    empty, one that is no text is written as JSON. Without any row there is no column, and so no header: no byte at all.

    :param rows: the rows.
    :param log: where progress goes.
    :param spool_folder: the local folder to keep rows in; default: the system's folder for temporary files.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], *, log: Log, spool_folder: str | None) -> None:
        self._rows = rows
        self._log = log
        self._spool_folder = spool_folder
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        """Give the header and the rows, in chunks."""
        with row_spool(self._spool_folder, self._log) as spool:
            columns: dict[str, None] = {}
            for row in self._rows:
                if not row.keys() <= columns.keys():
                    columns.update(dict.fromkeys(row))
                spool.add(row)
            yield from self._encoded(spool, list(columns))

    def _encoded(self, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> Iterator[bytes]:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        for row in rows:
            if not self.rows:
                writer.writerow(columns)
            self.rows += 1
            values = map(row.get, columns)
            writer.writerow([value if value is None else text_of(value) for value in values])
            if text.tell() >= _CHUNK:
                yield _drained(text)
        yield _drained(text)


def _drained(text: io.StringIO) -> bytes:
    chunk = text.getvalue()
    text.seek(0)
    text.truncate()
    return without_lone_surrogates(chunk).encode()
