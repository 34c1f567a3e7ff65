"""Makes the input of an agent of what a caller gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_agenty import parameters
from airflow_provider_agenty.api.inputs import OF_A_SOURCE, OF_URLS, AgentInput
from airflow_provider_agenty.exceptions import AgentyInputError


def checked_input(value: Any) -> AgentInput:
    """Return an input that can be sent: of an :class:`AgentInput`, a mapping with its fields, or URLs."""
    given = value.to_dict() if isinstance(value, AgentInput) else value
    if not isinstance(given, Mapping):
        return AgentInput("manual", parameters.urls(given, "new"))
    kind = str(given.get("type")).strip().lower()
    if kind in OF_URLS:
        return AgentInput(kind, parameters.urls(given.get("data"), "new: data"))
    if kind not in OF_A_SOURCE:
        raise AgentyInputError(
            f"new: the input's type {parameters.shown(given.get('type'))} is not known: it is 'manual' or 'url' with "
            "URLs in data, 'list' or 'agent' with id and field."
        )
    for name in ("id", "field"):
        if parameters.is_nothing(given.get(name)):
            raise AgentyInputError(f"new: an input of type {kind!r} needs {name}: where its URLs come from.")
    data = given.get("data") or ()
    if not isinstance(data, list | tuple) or not all(isinstance(each, str) for each in data):
        raise AgentyInputError(f"new: the data of an input of type {kind!r} is a list of text.")
    return AgentInput(
        kind,
        tuple(data),
        parameters.text("new: id", given["id"]),
        parameters.optional(parameters.collection, given.get("collection")),
        parameters.text("new: field", given["field"]),
    )
