"""The formats that rows are landed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.landing.formats.csv_rows import csv_rows
from airflow_provider_agenty.landing.formats.json_lines import Page, json_lines
from airflow_provider_agenty.landing.formats.parquet import parquet_rows
from airflow_provider_agenty.log import Log


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


class EncodedRows:
    """
    Rows as the bytes of a file, given once, with memory for some pages of them only.

    :param pages: The rows, page by page. A number may be a :class:`~airflow_provider_agenty.api.json_rows.NumberText`;
        no text has a lone surrogate.
    :param name: A format that :func:`check_format` accepts.
    :param column_types: ``text`` makes each value a text, as CSV has it anyway.
    :param spool_folder: The local folder to keep rows in. Default: the system's folder for temporary files.
    """

    def __init__(
        self,
        pages: Iterable[Page],
        name: str,
        *,
        column_types: str = "infer",
        log: Log,
        spool_folder: str | None = None,
    ) -> None:
        self.rows = 0
        as_text = column_types == "text"
        pages = self._counted(pages)
        if name == "jsonl":
            self._content = json_lines(pages, as_text=as_text)
        elif name == "csv":
            self._content = csv_rows(pages, log, spool_folder)
        else:
            self._content = parquet_rows(pages, log, spool_folder, as_text=as_text)

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes; ``rows`` is how many rows there were, once all of them are given."""
        return self._content

    def _counted(self, pages: Iterable[Page]) -> Iterator[Page]:
        for page in pages:
            self.rows += len(page)
            yield page
