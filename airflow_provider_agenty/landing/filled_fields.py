"""Counts the rows in which a field is filled: of the pages of a result, or of a CSV file."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from typing import IO, Any

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.formats.json_lines import Page
from airflow_provider_agenty.landing.temporary_file import StagedFile

_MOST_COLUMNS = 100  # that are remembered for a message
_LONGEST_RECORD = 16 * 1024 * 1024  # characters: csv.reader takes several times as many bytes


class FilledFields:
    """
    In how many rows each of some fields is filled, and which columns there are.

    :param names: The fields, as their columns are named.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.filled = dict.fromkeys(names, 0)
        self.columns: dict[str, None] = {}
        """The columns, not more than :data:`_MOST_COLUMNS` or those of one row."""
        self._there: set[str] = set()

    @property
    def missing(self) -> list[str]:
        """The fields that no column is named after."""
        return [name for name in self.filled if name not in self._there]

    def count_page(self, page: Page) -> None:
        """Count in rows of JSON."""
        for row in page:
            for name in self.filled.keys() & row.keys():
                self._there.add(name)
                self.filled[name] += is_filled(row[name])
            if len(self.columns) < _MOST_COLUMNS:
                self.columns.update(dict.fromkeys(row))

    def count_csv(self, staged: StagedFile, *, compressed: bool) -> None:
        """Count in a CSV file, whose first record names the columns."""
        # One limit for the whole process; Python's own is less than a scraped page has.
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_RECORD))
        with staged.content() as content:
            file: Any = gzip.GzipFile(fileobj=content) if compressed else content
            records = _records(file)
            header = next(records, [])
            self.columns = dict.fromkeys(header)
            self._there = self.filled.keys() & self.columns.keys()
            # Both of two columns with the same name have to be filled.
            places = {name: [i for i, column in enumerate(header) if column == name] for name in self._there}
            for record in records:
                width = len(record)
                for name, indexes in places.items():
                    for index in indexes:
                        if index >= width or not record[index] or record[index].isspace():
                            break
                    else:
                        self.filled[name] += 1


def is_filled(value: Any) -> bool:
    """Return whether a value of JSON is there: not null, no blank text, no empty list or object."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return bool(value) if isinstance(value, list | dict) else value is not None


def _records(file: IO[bytes]) -> Iterator[list[str]]:
    """Yield the records of a CSV file, blank lines left out."""
    lines = _Lines(file)
    for record in csv.reader(lines):
        lines.characters = 0
        if record:
            yield record


class _Lines:
    """The lines of a file, as long as those of one record stay within bounds."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST_RECORD - self.characters + 1)
        self.characters += len(line)
        if self.characters > _LONGEST_RECORD:
            raise AgentyExportError(
                f"A row of the file has more than {_LONGEST_RECORD} characters: required_fields can't be measured. "
                "Nothing was landed. Leave required_fields out, or land it with AgentyResultOperator."
            )
        if not line:
            raise StopIteration
        return line
