"""An agent's input: which pages its next job fetches."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.models import Job, unwrap
from airflow_provider_agenty.api.request import Answer, Transport
from airflow_provider_agenty.api.validation import LONGEST_NAME, read_integer, read_name, read_text

log = logging.getLogger(__name__)

OF_URLS = ("manual", "url")
"""The types of input that list the URLs themselves."""

OF_A_SOURCE = ("list", "agent")
"""The types of input that take the URLs from a field of a list, or of another agent's result."""


@dataclass(frozen=True)
class AgentInput:
    """
    The input of an agent, from which its next job takes the URLs to scrape.

    :param type: ``manual`` or ``url`` where the URLs are listed in ``data``; ``list`` or ``agent`` where they come from
        elsewhere.
    :param data: The URLs. With ``list`` and ``agent``, whatever Agenty keeps there.
    :param id: The list, or the other agent.
    :param collection: The collection of the other agent's result.
    :param field: The field of the list, or of the result, that holds the URLs.
    :param raw: The answer as it came; not sent.
    """

    type: str
    data: tuple[str, ...] = ()
    id: str | None = None
    collection: int | None = None
    field: str | None = None
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_answer(cls, answer: Answer) -> AgentInput:
        """Read an input out of an answer of the API."""
        values = unwrap(answer.json())
        kind = values.get("type") if isinstance(values, Mapping) else None
        if not isinstance(kind, str) or not kind.strip():
            raise answer.unexpected("holds no input: type is missing")
        data = values.get("data") or ()
        data = (data,) if isinstance(data, str) else data
        if not isinstance(data, list | tuple) or not all(isinstance(each, str) for each in data):
            raise answer.unexpected("holds no input: data is not a list of text")
        return cls(
            type=answer.clean(kind.strip().lower())[:LONGEST_NAME],
            data=tuple(data),
            id=read_name(values.get("id"), answer.clean),
            collection=read_integer(values.get("collection")),
            field=read_text(values.get("field"), answer.clean),
            raw=dict(values),
        )

    @property
    def lists_urls(self) -> bool:
        """Whether the URLs are in ``data``, and come from nowhere else."""
        return self.type in OF_URLS

    def to_dict(self) -> dict[str, Any]:
        """Return the input as JSON primitives, as the API takes it; what it does not have is left out."""
        source = {"id": self.id, "collection": self.collection, "field": self.field}
        present = {name: value for name, value in source.items() if value is not None}
        return {"type": self.type, "data": list(self.data), **present}


def warn_of_unread_input(newest: Job | None) -> None:
    """Tell that an agent's newest job may still read the input that is about to be set."""
    # It leaves the queue last.
    if newest is not None and newest.is_waiting:
        log.warning(
            "Job %d of agent %s is %s. If it has not read its input yet, it will scrape the URLs that are set now. "
            "To keep the jobs apart, start one after the other has ended",
            *(newest.job_id, newest.agent_id, newest.status),
        )


def set_input(transport: Transport, agent_id: str, new: AgentInput) -> None:
    """Set what an agent is to scrape (``PUT /inputs/{agent_id}``); twice is the same as once."""
    answer = transport.send("PUT", f"/inputs/{agent_id}", new.to_dict(), repeatable=True)
    said = unwrap(answer.json())
    # Its own status, beside that of HTTP: a job must not scrape, and be paid for, the input of before.
    if not isinstance(said, Mapping) or not str(said.get("status_code", 200)).startswith("2"):
        raise answer.unexpected("does not say that the input was set")
