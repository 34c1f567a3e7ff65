"""Rows kept on disk, to go through them twice."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from airflow_provider_agenty.landing.errors import LandingError, storage_error
from airflow_provider_agenty.landing.formats_json import json_line
from airflow_provider_agenty.landing.progress import Progress
from airflow_provider_agenty.landing.staging import make_room, spool_place
from airflow_provider_agenty.log import Log

_BUFFER = 1024 * 1024
_decode = json.JSONDecoder().decode


class RowSpool:
    """
    Rows in a file without a name, which is gone when it is closed, also where the process is killed.

    :param file: the file, empty.
    :param folder: where it is, for messages.
    :param log: where progress goes.
    """

    def __init__(self, file: IO[bytes], folder: Path, log: Log) -> None:
        self._file = file
        self._folder = folder
        self._progress = Progress(log, None)

    def add(self, row: Mapping[str, Any]) -> None:
        """
        Keep a row.

        :param row: the row.
        :raises LandingError: if the disk is full or fails.
        """
        line = json_line(row)
        try:
            self._file.write(line)
        except OSError as error:
            raise self._error(error) from error
        self._progress.advance(len(line))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give all rows, in their order."""
        for row, _ in self.with_sizes():
            yield row

    def with_sizes(self) -> Iterator[tuple[dict[str, Any], int]]:
        """
        Give all rows, in their order, with how many bytes they have as JSON.

        :raises LandingError: if the disk is full or fails.
        """
        try:
            self._file.seek(0)  # writes what is still in the buffer
        except OSError as error:
            raise self._error(error) from error
        for line in self._file:
            yield _decode(line.decode()), len(line)

    def _error(self, error: OSError) -> LandingError:
        return storage_error(error, "keep the rows of the result in", self._folder)


@contextlib.contextmanager
def row_spool(folder: str | None, log: Log) -> Iterator[RowSpool]:
    """
    Open a place to keep rows in.

    :param folder: the local folder, which is made; default: the system's folder for temporary files.
    :param log: where progress goes.
    :return: a context manager giving it.
    :raises LandingError: if nothing can be kept there.
    """
    place = spool_place(folder)
    make_room(place, None)
    try:
        file = tempfile.TemporaryFile(dir=place, buffering=_BUFFER)  # noqa: SIM115 - closed below, whatever happens
    except OSError as error:
        raise storage_error(error, "make a file in", place) from error
    try:
        yield RowSpool(file, place, log)
    finally:
        # Closing writes what is still in the buffer, which fails once more where the disk is full.
        with contextlib.suppress(OSError):
            file.close()
