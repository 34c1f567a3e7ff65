"""Rows as Parquet, through pyarrow, a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import NoneType
from typing import Any

from airflow_provider_agenty.api.json_rows import NumberText
from airflow_provider_agenty.landing.formats.json_lines import text_of
from airflow_provider_agenty.landing.formats.row_spool import Piece, row_spool
from airflow_provider_agenty.log import Log

# Each of these bounds the memory: where rows are small, where there are many columns, where values are large.
_ROWS_IN_GROUP = 100_000
_VALUES_IN_GROUP = 2_000_000
_BYTES_IN_GROUP = 16 * 1024 * 1024  # as JSON

_MOST_COLUMNS = 2_000  # pyarrow takes 50 µs and 2 KB for each of them in each row group

# Readers refuse a file without columns, and one could not tell how many rows it has.
_NO_COLUMNS = {"no_columns": "string"}

# What a column has been seen to hold, as bits. Null is no bit.
_BOOLEAN, _INTEGER, _LARGE_INTEGER, _FRACTION, _OTHER = 1, 2, 4, 8, 16
_KINDS = {NoneType: 0, bool: _BOOLEAN, float: _FRACTION}
_EXACT_IN_FLOAT = 2**53


class ParquetRows:
    """
    Rows as one Parquet file (pyarrow's defaults: format 2.6, Snappy).

    The columns are those of all rows, in the order in which they first appear. What all rows hold decides their types,
    so that no page can change them: ``bool`` if every value is true or false, ``int64`` if every one is a whole number
    that fits, ``double`` if every one is a number that keeps its value there, else ``string``, in which anything but
    text is JSON. A value that is missing or null is null. Rows without any column have one, ``no_columns``, of nulls.

    :param pages: the rows, page by page.
    :param as_text: whether each column is ``string``.
    :param log: where progress goes.
    :param spool_folder: the local folder to keep rows in; default: the system's folder for temporary files.
    """

    def __init__(
        self, pages: Iterable[Sequence[Mapping[str, Any]]], *, as_text: bool, log: Log, spool_folder: str | None
    ) -> None:
        self._pages = pages
        self._as_text = as_text
        self._log = log
        self._spool_folder = spool_folder
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        """Give the file in chunks of about a row group; the rows are counted by its footer."""
        with row_spool(self._spool_folder, _MOST_COLUMNS, self._log) as spool:
            kinds: dict[str, int] = {}
            for piece in spool.keep(self._pages):
                for name, values in piece.columns.items():
                    kinds[name] = kinds.get(name, 0) | (_OTHER if self._as_text else _kinds(values))
            types = {name: _column_type(kind) for name, kind in kinds.items()} or _NO_COLUMNS
            yield from self._encoded(spool, types)

    def _encoded(self, pieces: Iterable[Piece], types: Mapping[str, str]) -> Iterator[bytes]:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet

        schema = pyarrow.schema([(name, pyarrow.type_for_alias(alias)) for name, alias in types.items()])
        footers: list[Any] = []
        file = _Drain()
        with parquet.ParquetWriter(file, schema, metadata_collector=footers) as writer:
            for columns in _groups(pieces, types):
                # Taken out one by one, so that a column is not held twice, and no group while the next one is read.
                arrays = [
                    pyarrow.array(columns.pop(name), field.type) for name, field in zip(types, schema, strict=True)
                ]
                table = pyarrow.Table.from_arrays(arrays, schema=schema)
                del arrays
                writer.write_table(table)
                del table
                # Arrow gives memory back after a while only, in which the next group would come on top of it.
                pyarrow.default_memory_pool().release_unused()
                yield from file.drained()
        self.rows = footers[0].num_rows
        yield from file.drained()


class _Drain(io.RawIOBase):
    """A file that is only written to, and whose bytes are taken away meanwhile."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        chunk = bytes(data)
        self._chunks.append(chunk)
        self._position += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._position

    def drained(self) -> Iterator[bytes]:
        chunks, self._chunks = self._chunks, []
        yield from chunks


def _groups(pieces: Iterable[Piece], types: Mapping[str, str]) -> Iterator[dict[str, list[Any]]]:
    """Yield the values of each column, row group by row group."""
    columns: dict[str, list[Any]] = {name: [] for name in types}
    most_rows = max(1, min(_ROWS_IN_GROUP, _VALUES_IN_GROUP // max(1, len(types))))
    rows = size = 0
    for piece in pieces:
        values = {name: iter(piece.column(name)) for name in types}
        left = piece.rows
        while left:
            taken = min(left, most_rows - rows)
            for name, kind in types.items():
                some = islice(values[name], taken)
                columns[name].extend(map(text_of if kind == "string" else _number_of, some))
            left -= taken
            rows += taken
            size += piece.size * taken // piece.rows
            if rows >= most_rows or size >= _BYTES_IN_GROUP:
                yield columns
                columns = {name: [] for name in types}
                rows = size = 0
    if rows:
        yield columns


def _number_of(value: Any) -> Any:
    return value.value if isinstance(value, NumberText) else value


def _kinds(values: Sequence[Any]) -> int:
    kinds = 0
    for each in set(map(type, values)):
        if each is int:
            whole = [value for value in values if type(value) is int]
            # What is largest decides which types can hold them all.
            kinds |= _kind_of_integer(min(whole)) | _kind_of_integer(max(whole))
        elif each is NumberText:
            for held in {type(value.value) for value in values if type(value) is NumberText}:
                # The only whole one that is kept as its text and can be held is -0.
                kinds |= {int: _INTEGER, float: _FRACTION, NoneType: _OTHER}[held]
        else:
            kinds |= _KINDS.get(each, _OTHER)
    return kinds


def _kind_of_integer(value: int) -> int:
    return _INTEGER if abs(value) <= _EXACT_IN_FLOAT else _LARGE_INTEGER


def _column_type(kind: int) -> str:
    """Choose a type, by its name in Arrow, for all that a column has been seen to hold."""
    if kind == _BOOLEAN:
        return "bool"
    if kind and not kind & ~(_INTEGER | _LARGE_INTEGER):
        return "int64"
    if kind and not kind & ~(_INTEGER | _FRACTION):
        return "double"
    return "string"
