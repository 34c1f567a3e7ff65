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
    """Rows as the bytes of a file, given once."""

    @property
    def rows(self) -> int:
        """How many rows there are, once all bytes were given."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes."""


def check_format(name: str) -> None:
    """Refuse a format that rows can't be landed in on this machine."""
    if name != "parquet":
        return
    try:
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        raise AgentyInputError(
            "format 'parquet' needs pyarrow, which can't be imported here: install it where tasks run, with "
            f"pip install 'airflow-provider-agenty[parquet]'. ({error})"
        ) from None


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

    :param pages: The rows, page by page, gone through once. A number may be a
        :class:`~airflow_provider_agenty.number_text.NumberText`; no text has a lone surrogate.
    :param name: A format that :func:`check_format` accepts.
    :param column_types: ``text`` makes each value a text, as CSV has it anyway.
    :param spool_folder: The local folder to keep rows in. Default: the system's folder for temporary files.
    """
    as_text = column_types == "text"
    if name == "jsonl":
        return JsonLines(pages, as_text=as_text)
    if name == "csv":
        return CsvRows(pages, log=log, spool_folder=spool_folder)
    return ParquetRows(pages, as_text=as_text, log=log, spool_folder=spool_folder)
