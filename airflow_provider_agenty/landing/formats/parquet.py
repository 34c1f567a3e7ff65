"""Rows as Parquet, through pyarrow, a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from airflow_provider_agenty.api.json_rows import NumberText
from airflow_provider_agenty.landing.formats.json_lines import Page, text_of
from airflow_provider_agenty.landing.formats.row_spool import RowSpool, row_spool
from airflow_provider_agenty.log import Log

_ROWS_IN_GROUP = 100_000
_VALUES_IN_GROUP = 2_000_000
_MOST_COLUMNS = 2_000  # pyarrow takes 50 µs and 2 KB for each of them in each row group

# Readers refuse a file without columns, and one could not tell how many rows it has.
_NO_COLUMNS = {"no_columns": "string"}

# The kinds of values that a column holds, as bits. Null is no bit.
_BOOLEAN, _INTEGER, _LARGE_INTEGER, _FRACTION, _OTHER = 1, 2, 4, 8, 16
_EXACT_IN_FLOAT = 2**53


def parquet_rows(pages: Iterable[Page], log: Log, spool_folder: str | None, *, as_text: bool) -> Iterator[bytes]:
    """
    Give rows as one Parquet file (pyarrow's defaults: format 2.6, Snappy), in chunks of about a row group.

    The columns are those of all rows, in the order in which they first appear. The values of all rows decide the type
    of a column. It is ``bool`` if every value is true or false. It is ``int64`` if every one is a whole number that
    fits, and ``double`` if every one is a number that keeps its value there. Else it is ``string``, and anything but
    text is JSON. A value that is missing or null is null. Rows without any column have one, ``no_columns``, of nulls.
    """
    with row_spool(spool_folder, _MOST_COLUMNS, log) as spool:
        kinds: dict[str, int] = {}
        for page in spool.keep(pages):
            for name, value in chain.from_iterable(row.items() for row in page):
                kinds[name] = kinds.get(name, 0) | (_OTHER if as_text else _kind_of(value))
        yield from _encoded(spool, {name: _column_type(kind) for name, kind in kinds.items()} or _NO_COLUMNS)


def _encoded(spool: RowSpool, types: Mapping[str, str]) -> Iterator[bytes]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    schema = pyarrow.schema([(name, pyarrow.type_for_alias(alias)) for name, alias in types.items()])
    file = _Drain()
    with parquet.ParquetWriter(file, schema) as writer:
        for rows in spool.groups(max(1, min(_ROWS_IN_GROUP, _VALUES_IN_GROUP // len(types)))):
            arrays = [
                pyarrow.array([_held(row.get(name), kind) for row in rows], field.type)
                for (name, kind), field in zip(types.items(), schema, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            yield from file.drained()
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


def _held(value: Any, kind: str) -> Any:
    if kind == "string":
        return text_of(value)
    return value.value if isinstance(value, NumberText) else value


def _kind_of(value: Any) -> int:
    if isinstance(value, NumberText):
        value = value.value
        if value is None:
            return _OTHER
    if value is None:
        return 0
    if isinstance(value, bool):
        return _BOOLEAN
    if isinstance(value, int):
        return _INTEGER if abs(value) <= _EXACT_IN_FLOAT else _LARGE_INTEGER
    return _FRACTION if isinstance(value, float) else _OTHER


def _column_type(kind: int) -> str:
    """Choose a type, by its name in Arrow, for all that a column has been seen to hold."""
    if kind == _BOOLEAN:
        return "bool"
    if kind and not kind & ~(_INTEGER | _LARGE_INTEGER):
        return "int64"
    if kind and not kind & ~(_INTEGER | _FRACTION):
        return "double"
    return "string"
