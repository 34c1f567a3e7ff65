"""
Finds the values that Airflow changes before the task runs: templates, and outputs of other tasks.

It is cheap to import: operators do so whenever a DAG file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from airflow_provider_agenty import parameters

TEMPLATED: Mapping[str, Callable[[Any], Any]] = {
    "agent_id": lambda value: parameters.optional(parameters.agent_id, value),
    "agent_name": lambda value: None if value is None else parameters.text("agent_name", value),
    "urls": lambda value: parameters.optional(parameters.urls, value),
    "job_id": parameters.job_id,
    "path": parameters.path,
    "collection": parameters.collection,
    "filename": parameters.filename,
    "agenty_conn_id": parameters.agenty_conn_id,
    "storage_conn_id": parameters.storage_conn_id,
}
"""The check of each parameter that may be a template."""

JINJA_STARTS = ("{{", "{%", "{#")
"""The beginnings of what Jinja renders, unless the DAG says otherwise."""


def jinja_starts(environment: Mapping[str, Any] | None) -> Collection[str]:
    """Return what begins something that Jinja renders in a DAG with these ``jinja_environment_kwargs``."""
    own = (value for key, value in (environment or {}).items() if key.endswith(("_start_string", "_prefix")))
    return (*JINJA_STARTS, *(value for value in own if isinstance(value, str) and value))


def is_template(value: Any, starts: Collection[str] = JINJA_STARTS) -> bool:
    """Return whether Airflow makes another value of one before the task runs: a template, or a task's output."""
    text = parameters.path_text(value)
    if isinstance(text, str):
        return any(start in text for start in starts)
    return hasattr(value, "resolve")


def check_unrendered(name: str, value: Any, starts: Collection[str] = JINJA_STARTS) -> None:
    """Refuse what can't be used, as far as that shows before templates are rendered."""
    if is_template(value, starts) or (name == "urls" and _holds_template(value, starts)):
        return
    TEMPLATED[name](value)


def _holds_template(value: Any, starts: Collection[str]) -> bool:
    # An iterator can be read only once: it counts as a template.
    return isinstance(value, Iterator) or any(is_template(each, starts) for each in parameters.items_of(value) or ())
