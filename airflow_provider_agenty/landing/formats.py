"""The formats that rows are landed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from airflow_provider_agenty.landing.formats_csv import CsvRows
from airflow_provider_agenty.landing.formats_json import JsonLines
from airflow_provider_agenty.landing.formats_parquet import ParquetRows
from airflow_provider_agenty.log import Log

FORMATS = ("jsonl", "csv", "parquet")
"""What they are called, which is how the names of their files end too."""


COLUMN_TYPES = ("infer", "text")
"""What decides the types of columns: the values of the result, or nothing, since all of them are text."""


class FormatError(ValueError):
    """Rows can't be landed in a format, or not at such a path; nothing was asked for."""


class Encoded(Protocol):
    """Rows as the bytes of a file."""

    @property
    def rows(self) -> int:
        """How many rows are in what was given so far."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes, once."""


def check_format(name: str, path: str) -> None:
    """
    Check that rows can be landed in a format, on this machine and at such a path.

    :param name: the format.
    :param path: where the file is to appear.
    :raises FormatError: if not, saying what to do.
    """
    if name not in FORMATS:
        raise FormatError(f"format {name!r} is not known: it is 'jsonl' (the default), 'csv' or 'parquet'.")
    if name != "parquet":
        return
    if isinstance(path, str) and path.endswith(".gz"):
        raise FormatError(
            f"{path} ends in .gz, and Parquet files are compressed inside, so that readers can skip parts of them: "
            "let it end in .parquet."
        )
    trouble = None
    try:
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        trouble = error
    if trouble:
        raise FormatError(
            "format 'parquet' needs pyarrow, which can't be imported here: install it where tasks run, with "
            f"pip install 'airflow-provider-agenty[parquet]'. ({trouble})"
        )


def check_column_types(name: str) -> None:
    """
    Check what is to decide the types of columns.

    :param name: one of :data:`COLUMN_TYPES`.
    :raises FormatError: if it is none.
    """
    if name not in COLUMN_TYPES:
        raise FormatError(f"column_types {name!r} is not known: it is 'infer' (the default) or 'text'.")


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
