"""The formats that rows are landed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.landing.formats.csv_rows import CsvRows
from airflow_provider_agenty.landing.formats.json_lines import JsonLines
from airflow_provider_agenty.landing.formats.parquet import ParquetRows
from airflow_provider_agenty.log import Log


class Encoded(Protocol):
    """Rows as the bytes of a file."""

    @property
    def rows(self) -> int:
        """How many rows are in what was given so far."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes, once."""


def check_format(name: str) -> None:
    """
    Check that rows can be landed in a format on this machine.

    :param name: ``jsonl``, ``csv`` or ``parquet``.
    :raises AgentyInputError: if not, saying what to do.
    """
    if name != "parquet":
        return
    trouble = None
    try:
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        trouble = error
    if trouble:
        raise AgentyInputError(
            "format 'parquet' needs pyarrow, which can't be imported here: install it where tasks run, with "
            f"pip install 'airflow-provider-agenty[parquet]'. ({trouble})"
        )


def encode_pages(
    pages: Iterable[Sequence[Mapping[str, Any]]],
    name: str,
    *,
    column_types: str = "infer",
    log: Log,
    spool_folder: str | None = None,
) -> Encoded:
    """
    Turn rows into the bytes of a file, with memory for some pages of them only.

    CSV and Parquet begin with what the last row may change, the columns and their types. They keep the rows on disk
    until the last one is there.

    :param pages: the rows, page by page, gone through once. A number may be a
        :class:`~airflow_provider_agenty.number_text.NumberText`; no text has a lone surrogate.
    :param name: a format that :func:`check_format` accepts.
    :param column_types: ``text`` makes each value a text, as CSV has it anyway.
    :param log: where progress goes.
    :param spool_folder: the local folder to keep rows in; default: the system's folder for temporary files.
    :return: the bytes, an iterable for :func:`~airflow_provider_agenty.landing.land_file.land`.
    """
    as_text = column_types == "text"
    if name == "jsonl":
        return JsonLines(pages, as_text=as_text)
    if name == "csv":
        return CsvRows(pages, log=log, spool_folder=spool_folder)
    return ParquetRows(pages, as_text=as_text, log=log, spool_folder=spool_folder)
