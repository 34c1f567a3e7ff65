"""How commands write: data on stdout and nothing else, tables for people, JSON for scripts."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

OK, WARNING, ERROR = "ok", "warning", "error"


class Finding(NamedTuple):
    """The result of a check of ``doctor``, and what to do about it."""

    check: str
    status: str
    message: str


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; its name if it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def data_output() -> Iterator[TextIO]:
    """Give the file for data. Everything else that this process prints, such as Airflow's log, goes to stderr."""
    stdout = sys.__stdout__
    if stdout is None or stdout is not sys.stdout:
        data = sys.stdout  # somebody collects the output
        with contextlib.redirect_stdout(sys.stderr):
            yield data
        return
    stdout.flush()
    # Airflow's loggers hold on to sys.stdout, so it is led elsewhere below Python.
    with os.fdopen(os.dup(1), "w", encoding=stdout.encoding, errors="replace") as file:
        os.dup2(2, 1)
        try:
            yield file
        finally:
            stdout.flush()
            os.dup2(file.fileno(), 1)


def write_json(data: TextIO, value: Any) -> None:
    """Write a value as JSON."""
    data.write(json.dumps(value, indent=2) + "\n")


def write_table(data: TextIO, header: Iterable[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows in columns, as wide as what is in them."""
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        data.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n")


def _cell(value: Any) -> str:
    return "-" if value is None else " ".join(str(value).split())
