"""
Checks what a DAG asks of a result before it is landed: ``required_fields`` and ``max_row_drop``.

It is cheap to import: operators do so whenever a DAG file is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from airflow_provider_agenty import parameters
from airflow_provider_agenty.exceptions import AgentyInputError


def required_fields(value: Any) -> dict[str, float] | None:
    """Return the least share of rows in which each field is filled, by its name; ``None``: no field is required."""
    if value is None:
        return None
    names = list(value) if isinstance(value, Mapping) else parameters.items_of(value)
    if names is None:
        raise AgentyInputError(
            f"required_fields is {parameters.shown(value)}. Give a list of column names, or a mapping of names to "
            "shares of rows."
        )
    if not names:
        raise AgentyInputError("required_fields is empty. Name at least one column, or leave it out.")
    shares = list(value.values()) if isinstance(value, Mapping) else [1.0] * len(names)
    checked: dict[str, float] = {}
    for name, share in zip(map(_column_name, names), shares, strict=True):
        if name in checked:
            raise AgentyInputError(f"required_fields names {parameters.shown(name)} twice. Name each column once.")
        checked[name] = _share(name, share)
    return checked


def _column_name(name: Any) -> str:
    # To the letter: a column's name may begin with a space.
    if not isinstance(name, str) or parameters.is_nothing(name):
        raise AgentyInputError(
            f"required_fields has {parameters.shown(name)} in it where the name of a column is meant. Give text that "
            "is not empty."
        )
    return str.__str__(name)


def _share(name: str, value: Any) -> float:
    with contextlib.suppress(AgentyInputError):
        share = parameters.share("share", value)
        if share is not None:
            return share
    raise AgentyInputError(
        f"required_fields: the share of {parameters.shown(name)} is not a number from 0 to 1. Give the least share of "
        "rows in which it is filled; 0: only that the column is there."
    )


def max_row_drop(value: Any) -> float | None:
    """Return the largest share of rows that a result may have less than the one before; ``None``: any."""
    return parameters.share("max_row_drop", value)


def refuse_for_logs(*, writes: str, **guards: Any) -> None:
    """Refuse what guards a result where a log is landed."""
    for name, value in guards.items():
        if writes == "log" and value is not None:
            raise AgentyInputError(f"{name} can't be combined with file_type='logs': a log has no rows. Leave it out.")
