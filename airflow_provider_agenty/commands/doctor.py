"""``doctor``: check what tasks of Agenty need, in the order in which they need it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import TextIO

from airflow_provider_agenty.commands import airflow_checks, connection_checks, place_checks
from airflow_provider_agenty.commands.output import ERROR, OK, WARNING, Finding, first_line, write_json

_MARKS = {OK: "✓", WARNING: "!", ERROR: "✗"}


def doctor(options: argparse.Namespace, data: TextIO) -> int:
    """Write what was found, a line each, and return 1 if something is wrong."""
    if options.write and not options.path:
        raise ValueError("--write needs --path: say where to write.")
    found = []
    for finding in _findings(options):
        found.append(finding)
        if not options.json:
            data.write(f"{_MARKS[finding.status]} {finding.check}: {finding.message}\n")
            data.flush()
    if options.json:
        write_json(data, [finding._asdict() for finding in found])
    return 1 if any(finding.status == ERROR for finding in found) else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    yield airflow_checks.check_versions()
    database = airflow_checks.read_database()
    has_database = isinstance(database, airflow_checks.Database)
    yield from connection_checks.check_connection(options.conn_id, has_database=has_database)
    yield _checked("triggerer", partial(airflow_checks.check_triggerer, database))
    yield _checked("default_deferrable", airflow_checks.check_deferrable)
    yield _checked("max_map_length", airflow_checks.check_mapping)
    yield _checked("task state store", airflow_checks.check_memory)
    yield place_checks.check_spool_folder()
    if options.path:
        yield place_checks.check_path(options.path, write=options.write)


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    """Do a check; a setting that Airflow can't read must not hide the checks after it."""
    try:
        return check()
    except Exception as error:
        return Finding(name, ERROR, first_line(error))
