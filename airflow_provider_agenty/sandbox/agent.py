"""Agents: what they are called, what they have scraped, how their jobs go."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_agenty.sandbox.content import Content, content_from

SAMPLE_AGENTS = Path(__file__).with_name("agents")
AGENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_COLLECTIONS = 10
_CSV_NAME = re.compile(r"(?P<agent>[A-Za-z0-9_-]{1,64})(?:\.(?P<collection>[1-9]|10))?(?P<default>\.default)?\.csv")


@dataclass(frozen=True)
class Plan:
    """
    How a job goes.

    :param outcome: the state it ends in: ``completed``, ``aborted`` or ``failed``.
    :param pages: number of pages it fetches; with URLs as its input their number instead.
    :param failed_pages: how many of them fail.
    :param error: the job's ``error`` where it does not complete.
    :param seconds: time from start to end; ``None``: the sandbox's own.
    :param log: further log lines (level, message), written when the job runs.
    """

    outcome: str = "completed"
    pages: int = 12
    failed_pages: int = 0
    error: str | None = None
    seconds: float | None = None
    log: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if self.outcome not in ("completed", "aborted", "failed"):
            raise ValueError(f"A job ends as completed, aborted or failed, not as {self.outcome!r}.")
        if self.pages < 0 or not 0 <= self.failed_pages <= self.pages:
            raise ValueError("pages must not be negative, and failed_pages must be between 0 and pages.")
        if not isinstance(self.error, str | None):
            raise TypeError(f"error must be text, not {type(self.error).__name__}.")


@dataclass(frozen=True)
class Input:
    """The input of an agent, as ``GET`` and ``PUT /inputs/{agent_id}`` speak of it."""

    type: str = "url"
    data: tuple[str, ...] = ()
    id: str | None = None
    collection: int | None = None
    field: str | None = None


@dataclass(frozen=True)
class Agent:
    """
    An agent of the account.

    :param agent_id: its id.
    :param collections: the CSV of each collection, counted from 1.
    :param default_collections: what ``modified=0`` gives, for the collections where that differs.
    :param name: its name.
    :param type: its type, as in the job object and in the web app's addresses.
    :param project_id: the project that it is in; ``None``: none.
    :param tags: its tags.
    :param plan: how its jobs go.
    :param input: what it scrapes.
    """

    agent_id: str
    collections: Mapping[int, Content]
    default_collections: Mapping[int, Content] = field(default_factory=dict)
    name: str = ""
    type: str = "scraping"
    project_id: int | None = None
    tags: Sequence[str] = ()
    plan: Plan = Plan()
    input: Input = Input()

    def __post_init__(self) -> None:
        if not AGENT_ID.fullmatch(self.agent_id):
            raise ValueError(f"{self.agent_id!r} is not an agent id: letters, digits, '-' and '_' only.")
        for collection in (*self.collections, *self.default_collections):
            if not 1 <= collection <= MAX_COLLECTIONS:
                raise ValueError(f"Agent {self.agent_id} has a collection {collection}; they count from 1 to 10.")

    def content(self, collection: int, *, modified: bool) -> Content | None:
        """Return the CSV of a collection, before post-processing if ``modified`` is false and it differs."""
        if not modified and collection in self.default_collections:
            return self.default_collections[collection]
        return self.collections.get(collection)


def load_agents(source: object = None) -> dict[str, Agent]:
    """Make the agents of an account from what :class:`Sandbox` takes."""
    if source is None or isinstance(source, str | Path):
        return read_folder(Path(source or SAMPLE_AGENTS))
    if isinstance(source, Mapping):
        return {agent_id: _agent_from(agent_id, value) for agent_id, value in source.items()}
    raise TypeError(f"agents must be a folder or a mapping from agent id to CSV, not {type(source).__name__}.")


def _agent_from(agent_id: str, value: object) -> Agent:
    if isinstance(value, Agent):
        return value
    collections = value if isinstance(value, Mapping) else {1: value}
    return Agent(agent_id, {number: content_from(each) for number, each in collections.items()})


def read_folder(folder: Path) -> dict[str, Agent]:
    """
    Read agents from a folder of CSV files.

    ``45l0wewqzk.csv`` is collection 1 of agent 45l0wewqzk, ``45l0wewqzk.2.csv`` its collection 2,
    ``45l0wewqzk.default.csv`` what ``modified=0`` gives. ``45l0wewqzk.json`` may say more about the agent:
    ``name``, ``type``, ``project_id``, ``tags``, and the fields of :class:`Plan`. Other files are left alone.

    :raises ValueError: there is no such folder, no agent in it, or a JSON file that cannot be used.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; give one that holds CSV files named after agents.")
    collections: dict[str, dict[int, Content]] = {}
    defaults: dict[str, dict[int, Content]] = {}
    for path in sorted(folder.iterdir()):
        if match := _CSV_NAME.fullmatch(path.name):
            kind = defaults if match["default"] else collections
            kind.setdefault(match["agent"], {})[int(match["collection"] or 1)] = Content(path)
    if not collections:
        raise ValueError(f"{folder} holds no agent: put CSV files named after agents in it, as in 45l0wewqzk.csv.")
    return {
        agent_id: Agent(agent_id, contents, defaults.get(agent_id, {}), **_described(folder / f"{agent_id}.json"))
        for agent_id, contents in collections.items()
    }


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        about = {key: described.pop(key) for key in ("name", "type", "project_id", "tags") if key in described}
        if urls := described.pop("urls", None):
            about["input"] = Input(data=tuple(urls))
        return {**about, "plan": Plan(**described)}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def rows_for_urls(content: Content, urls: Sequence[str]) -> Content:
    """Return what a job makes of a list of URLs: a row for each, the agent's fields filled from its sample."""
    sample = content.rows(0, len(urls)) or [{}]
    # The URL comes first, whether or not the sample has such a column.
    rows = [{"url": url} | sample[number % len(sample)] | {"url": url} for number, url in enumerate(urls)]
    return Content.from_rows(rows)
