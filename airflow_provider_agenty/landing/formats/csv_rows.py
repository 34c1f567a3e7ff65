"""Rows as CSV, whatever columns they have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from typing import Any

from airflow_provider_agenty.landing.formats.json_lines import text_of
from airflow_provider_agenty.landing.formats.row_spool import Piece, row_spool
from airflow_provider_agenty.log import Log

_MOST_COLUMNS = 10_000
_VALUES_IN_CHUNK = 10_000


class CsvRows:
    """
    Rows as RFC 4180 has them: UTF-8, commas, CR LF, quotes where they are needed, a header.

    The columns are those of all rows, in the order in which they first appear. A value that is missing or null is
    empty, one that is no text is written as JSON. Without any row there is no column, and so no header: no byte at all.

    :param pages: the rows, page by page.
    :param log: where progress goes.
    :param spool_folder: the local folder to keep rows in; default: the system's folder for temporary files.
    """

    def __init__(self, pages: Iterable[Sequence[Mapping[str, Any]]], *, log: Log, spool_folder: str | None) -> None:
        self._pages = pages
        self._log = log
        self._spool_folder = spool_folder
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        """Give the header and the rows, in chunks."""
        with row_spool(self._spool_folder, _MOST_COLUMNS, self._log) as spool:
            columns: dict[str, None] = {}
            for piece in spool.keep(self._pages):
                columns.update(dict.fromkeys(piece.columns))
            yield from self._encoded(spool, list(columns))

    def _encoded(self, pieces: Iterable[Piece], columns: list[str]) -> Iterator[bytes]:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        most_rows = max(1, _VALUES_IN_CHUNK // max(1, len(columns)))
        for piece in pieces:
            if not self.rows:
                writer.writerow(columns)
            self.rows += piece.rows
            rows = iter(_rows_of(piece, columns))
            while some := list(islice(rows, most_rows)):
                writer.writerows(some)
                yield _drained(text)


def _rows_of(piece: Piece, columns: list[str]) -> Iterable[Iterable[str | None]]:
    if not columns:
        return repeat((), piece.rows)
    # Where rows have few of the columns, most columns are null in all of a piece.
    return zip(
        *(map(text_of, piece.columns[name]) if name in piece.columns else repeat(None, piece.rows) for name in columns),
        strict=True,
    )


def _drained(text: io.StringIO) -> bytes:
    chunk = text.getvalue()
    text.seek(0)
    text.truncate()
    return chunk.encode()
