"""The account's agents: what Agenty says of one, the list of them, and finding one by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_agenty.api.models import unwrap
from airflow_provider_agenty.api.pages import rows_and_total
from airflow_provider_agenty.api.request import Answer, Transport
from airflow_provider_agenty.api.validation import (
    LONGEST_NAME,
    Clean,
    clean_text,
    read_agent_id,
    read_integer,
    read_name,
    read_text,
)
from airflow_provider_agenty.exceptions import (
    AgentyInputError,
    AgentyNotFoundError,
    AgentyUnexpectedAnswerError,
)

AGENT_PAGE = 1000

MAX_PAGES = 500
"""The largest number of pages that are read of the list: a server may go on for ever."""

_AGENTS_SHOWN = 20


@dataclass(frozen=True)
class Agent:
    """
    An agent as Agenty described it.

    Only ``agent_id`` can be relied on. Other fields are ``None`` or empty where Agenty did not say them. A list says
    less than ``GET /agents/{agent_id}``. The whole answer is in :attr:`raw`.

    :param fields: The names of the fields of each collection, by its number, counted from 1.
    """

    agent_id: str
    name: str | None = None
    type: str | None = None
    project_id: int | None = None
    tags: tuple[str, ...] = ()
    fields: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_answer(cls, answer: Any, *, clean: Clean = clean_text) -> Agent:
        """Read an agent out of a decoded answer of the API."""
        values = unwrap(answer)
        agent_id = read_agent_id(values.get("agent_id")) if isinstance(values, Mapping) else None
        if agent_id is None:
            raise AgentyUnexpectedAnswerError("Agenty's answer holds no agent: agent_id is missing")
        config = values.get("config")
        collections = _list(config.get("collections")) if isinstance(config, Mapping) else []
        return cls(
            agent_id,
            name=read_text(values.get("name"), clean),
            type=read_name(values.get("type"), clean),
            project_id=read_integer(values.get("project_id")),
            tags=_texts(_list(values.get("tags")), clean),
            fields={number: _field_names(each, clean) for number, each in enumerate(collections, 1)},
            raw=values,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the agent as JSON primitives: collections' numbers are text, as keys; :attr:`raw` is left out."""
        return {
            "agent_id": self.agent_id,
            "name": self.name,
            "type": self.type,
            "project_id": self.project_id,
            "tags": list(self.tags),
            "fields": {str(number): list(names) for number, names in self.fields.items()},
        }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(values: list[Any], clean: Clean) -> tuple[str, ...]:
    return tuple(text for value in values if (text := read_text(value, clean)))


def _field_names(collection: Any, clean: Clean) -> tuple[str, ...]:
    described = _list(collection.get("fields")) if isinstance(collection, Mapping) else []
    return _texts([each.get("name") for each in described if isinstance(each, Mapping)], clean)


def get_agent(transport: Transport, agent_id: str) -> Agent:
    """Return an agent (``GET /agents/{agent_id}``)."""
    answer = transport.read(f"/agents/{agent_id}")
    agent = _read_agent(answer, answer.json())
    if agent.agent_id != agent_id:
        raise answer.unexpected(f"holds another agent, {agent.agent_id}")
    return agent


def _read_agent(answer: Answer, values: Any) -> Agent:
    try:
        return Agent.from_answer(values, clean=answer.clean)
    except AgentyUnexpectedAnswerError:
        pass
    raise answer.unexpected("holds no agent: agent_id is missing")


def iter_agents(
    transport: Transport, *, project_id: int | None = None, tag: str | None = None, agent_type: str | None = None
) -> Iterator[Agent]:
    """
    Yield the agents of a project, or of the account, that have a tag and a type; none of them twice.

    A row of a list may leave out what is asked for. Then the agent itself is asked for, once.
    """
    listed = iter_list(transport) if project_id is None else _iter_project(transport, project_id)
    wanted = {"project_id": project_id, "tags": tag, "type": agent_type}
    asked = [name for name, value in wanted.items() if value is not None]
    for agent in listed:
        whole: Agent | None = agent
        if any(name not in agent.raw for name in asked):
            whole = _look_up(transport, agent)
        if (
            whole is not None
            and project_id in (None, whole.project_id)
            and (tag is None or tag in whole.tags)
            and agent_type in (None, whole.type)
        ):
            yield whole


def _look_up(transport: Transport, agent: Agent) -> Agent | None:
    try:
        whole = get_agent(transport, agent.agent_id)
        # The list of a project knows what its agents need not say themselves.
        return whole if whole.project_id is not None else replace(whole, project_id=agent.project_id)
    except AgentyNotFoundError:
        return None  # it was deleted meanwhile


def iter_list(transport: Transport) -> Iterator[Agent]:
    """
    Yield the agents as they are listed (``GET /agents``), in pages with a total or as plain lists.

    The list ends where a page has nothing new, whatever was asked for.
    """
    seen: set[str] = set()
    offset = pages = 0
    while True:
        answer = transport.read("/agents", {"offset": offset, "limit": AGENT_PAGE})
        values = answer.json()
        # A plain list does not say whether there is more.
        rows, total = (values, None) if isinstance(values, list) else rows_and_total(values, answer)
        new = _new_agents(answer, rows, seen)
        yield from new
        offset += len(rows)
        pages += 1
        if not new or (total is not None and offset >= total):
            return
        if pages == MAX_PAGES:
            raise answer.unexpected(f"is page {pages} of the list of agents, which has no end")


def _iter_project(transport: Transport, project_id: int) -> Iterator[Agent]:
    """Yield the agents of a project as it lists them, or all of the account where it does not."""
    answer = transport.read(f"/projects/{project_id}")
    values = unwrap(answer.json())
    rows = values.get("agents") if isinstance(values, Mapping) else None
    if not isinstance(rows, list):
        yield from iter_list(transport)
        return
    # A row need not repeat which project it is in.
    rows = [{**row, "project_id": project_id} if isinstance(row, Mapping) else row for row in rows]
    yield from _new_agents(answer, rows, set())


def _new_agents(answer: Answer, rows: list[Any], seen: set[str]) -> list[Agent]:
    new = []
    for row in rows:
        agent = _read_agent(answer, row)
        if agent.agent_id not in seen:
            seen.add(agent.agent_id)
            new.append(agent)
    return new


def find_agent(transport: Transport, name: str, *, shown: str) -> Agent:
    """
    Return the one agent of a name, as the list has it.

    :param shown: The name as messages may show it.
    :raises AgentyInputError: if none or several have it.
    """
    named: list[Agent] = []
    first: list[Agent] = []
    total = 0
    for total, agent in enumerate(iter_list(transport), 1):
        # The name as it came: cleaned, two names may be the same.
        if str(agent.raw.get("name")).strip() == name:
            named.append(agent)
        # No more agents are kept than are shown: a list may be long.
        if total <= _AGENTS_SHOWN:
            first.append(agent)
    if len(named) == 1:
        return named[0]
    if named:
        raise AgentyInputError(
            f"{len(named)} agents are called {shown}: {_shown(named, len(named))}. Give agent_id in place of the name."
        )
    raise AgentyInputError(
        f"There is no agent called {shown}. The account has {_shown(first, total)}. Correct the name: upper and "
        "lower case count."
    )


def _shown(agents: list[Agent], total: int) -> str:
    named = (f"{agent.agent_id} ({(agent.name or '')[:LONGEST_NAME]})" for agent in agents[:_AGENTS_SHOWN])
    shown = ", ".join(named) or "none"
    return shown if total <= _AGENTS_SHOWN else f"{shown} and {total - _AGENTS_SHOWN} more"
