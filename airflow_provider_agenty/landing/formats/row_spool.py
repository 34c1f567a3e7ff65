"""Rows kept on disk, to go through them twice, and column by column: rows one by one take ten times as long."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import IO, Any

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.formats.json_lines import json_line
from airflow_provider_agenty.landing.progress import Progress
from airflow_provider_agenty.landing.temporary_file import disk_error, make_room, spool_place
from airflow_provider_agenty.log import Log
from airflow_provider_agenty.number_text import keep_fraction, keep_integer

# Bounds the memory where rows of a page share few of their columns: they are null in all others.
_VALUES_IN_PIECE = 500_000
_BUFFER = 1024 * 1024
_decode = json.JSONDecoder(parse_int=keep_integer, parse_float=keep_fraction).decode


@dataclass(frozen=True)
class Piece:
    """
    Some of the rows, one after another: a page, or a part of it.

    :param rows: how many there are.
    :param columns: the values of each column that one of them has, one for each row.
    :param size: how many bytes they have as JSON.
    """

    rows: int
    columns: Mapping[str, Sequence[Any]]
    size: int

    def column(self, name: str) -> Iterable[Any]:
        """
        Return the values of a column, one for each row: ``None`` where a row has none.

        :param name: its name, which none of the rows need have.
        """
        return self.columns.get(name) or repeat(None, self.rows)


class RowSpool:
    """
    Rows in a file without a name, which is gone when it is closed, also where the process is killed.

    :param file: the file, empty.
    :param folder: where it is, for messages.
    :param most_columns: how many columns they may have. Each row has a cell for each of them: rows that all have other
        keys would take the square of their number.
    :param log: where progress goes.
    """

    def __init__(self, file: IO[bytes], folder: Path, most_columns: int, log: Log) -> None:
        self._file = file
        self._folder = folder
        self._most_columns = most_columns
        self._progress = Progress(log, None)

    def keep(self, pages: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[Piece]:
        """
        Keep rows.

        :param pages: the rows, page by page.
        :return: what was kept, as soon as it is.
        :raises AgentyExportError: if the disk is full or fails, or there are too many columns.
        """
        all_names: set[str] = set()
        for rows, names in chain.from_iterable(map(_pieces, pages)):
            all_names.update(names)
            if len(all_names) > self._most_columns:
                raise AgentyExportError(
                    f"The rows of the result have more than {self._most_columns} different keys: too many to make "
                    "columns of them in this format. Nothing was landed. Land it with format='jsonl'."
                )
            columns = {name: [row.get(name) for row in rows] for name in names}
            line = json_line([len(rows), columns])
            try:
                self._file.write(line)
            except OSError as error:
                raise self._error(error) from error
            self._progress.advance(len(line))
            yield Piece(len(rows), columns, len(line))

    def __iter__(self) -> Iterator[Piece]:
        """
        Give all rows, in their order.

        :raises AgentyExportError: if the disk is full or fails.
        """
        try:
            self._file.seek(0)  # writes what is still in the buffer
        except OSError as error:
            raise self._error(error) from error
        for line in self._file:
            rows, columns = _decode(line.decode())
            yield Piece(rows, columns, len(line))

    def _error(self, error: OSError) -> AgentyExportError:
        return disk_error(error, "keep the rows of the result in", self._folder)


def _pieces(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Sequence[Mapping[str, Any]], Iterable[str]]]:
    """Yield rows in parts, each with the columns that it has, in the order in which they first appear."""
    names = dict.fromkeys(chain.from_iterable(rows))
    if len(rows) > 1 and len(rows) * len(names) > _VALUES_IN_PIECE:
        half = len(rows) // 2
        yield from _pieces(rows[:half])
        yield from _pieces(rows[half:])
    elif rows:
        yield rows, names


@contextlib.contextmanager
def row_spool(folder: str | None, most_columns: int, log: Log) -> Iterator[RowSpool]:
    """
    Open a place to keep rows in.

    :param folder: the local folder, which is made; default: the system's folder for temporary files.
    :param most_columns: how many columns the rows may have.
    :param log: where progress goes.
    :return: a context manager giving it.
    :raises AgentyExportError: if nothing can be kept there.
    """
    place = spool_place(folder)
    make_room(place, None)
    try:
        file = tempfile.TemporaryFile(dir=place, buffering=_BUFFER)  # noqa: SIM115 - closed below, whatever happens
    except OSError as error:
        raise disk_error(error, "make a file in", place) from error
    try:
        yield RowSpool(file, place, most_columns, log)
    finally:
        # Closing writes what is still in the buffer, which fails once more where the disk is full.
        with contextlib.suppress(OSError):
            file.close()
