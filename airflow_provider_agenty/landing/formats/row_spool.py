"""Rows kept on disk, for formats that begin with what the last row may change."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from airflow_provider_agenty.api.json_rows import keep_fraction, keep_integer
from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.formats.json_lines import Page, json_line
from airflow_provider_agenty.landing.progress import Progress
from airflow_provider_agenty.landing.temporary_file import disk_error, make_room, spool_place
from airflow_provider_agenty.log import Log

_BYTES_IN_GROUP = 8 * 1024 * 1024  # as JSON
_decode = json.JSONDecoder(parse_int=keep_integer, parse_float=keep_fraction).decode


class RowSpool:
    """
    Rows as JSON Lines in an open file, and the columns that they have, in the order in which they first appear.

    There is a limit to the columns: each row has a cell for each of them, so rows that all have other keys would take
    the square of their number.
    """

    def __init__(self, file: IO[bytes], folder: Path, most_columns: int, log: Log) -> None:
        self._file = file
        self._folder = folder
        self._most_columns = most_columns
        self._progress = Progress(log, None)
        self.columns: dict[str, None] = {}

    def keep(self, pages: Iterable[Page]) -> Iterator[Page]:
        """Keep rows, and give each page back."""
        for page in pages:
            for row in page:
                self.columns.update(dict.fromkeys(row))
            if len(self.columns) > self._most_columns:
                raise AgentyExportError(
                    f"The rows of the result have more than {self._most_columns} different keys: too many to make "
                    "columns of them in this format. Nothing was landed. Land it with format='jsonl'."
                )
            lines = b"".join(map(json_line, page))
            with self._errors():
                self._file.write(lines)
            self._progress.advance(len(lines))
            yield page

    def groups(self, most_rows: int) -> Iterator[list[dict[str, Any]]]:
        """Give all rows in their order, some at once: not more than so many, and about 8 MiB of JSON."""
        with self._errors():
            self._file.seek(0)  # writes what is still in the buffer
        rows, size = [], 0
        for line in self._file:
            rows.append(_decode(line.decode()))
            size += len(line)
            if len(rows) >= most_rows or size >= _BYTES_IN_GROUP:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(error, "keep the rows of the result in", self._folder) from error


@contextlib.contextmanager
def row_spool(folder: str | None, most_columns: int, log: Log) -> Iterator[RowSpool]:
    """Open a place for rows in a folder: a file without a name, which is gone also where the process is killed."""
    place = spool_place(folder)
    make_room(place, None)
    try:
        file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 - closed below, whatever happens
    except OSError as error:
        raise disk_error(error, "make a file in", place) from error
    try:
        yield RowSpool(file, place, most_columns, log)
    finally:
        # Closing writes what is still in the buffer, which fails once more where the disk is full.
        with contextlib.suppress(OSError):
            file.close()
