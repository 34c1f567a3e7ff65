"""An agent's input: which pages its next job fetches."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_agenty.api.errors import InvalidInputError
from airflow_provider_agenty.api.identifiers import check_collection
from airflow_provider_agenty.api.jobs import unwrap
from airflow_provider_agenty.api.transport import Answer, Transport
from airflow_provider_agenty.api.validation import LONGEST_NAME, read_integer, read_name, read_text

OF_URLS = ("manual", "url")
"""The types of input that list the URLs themselves."""

OF_A_SOURCE = ("list", "agent")
"""The types of input that take the URLs from a field of a list, or of another agent's result."""

_SHOWN_CHARACTERS = 100
_CREDENTIALS = re.compile(r"//[^/]*@")


@dataclass(frozen=True)
class AgentInput:
    """
    What an agent is to scrape.

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
        """
        Read an input out of an answer of the API.

        :param answer: The answer.
        :raises UnexpectedAnswerError: if it holds no input.
        """
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
        values: dict[str, Any] = {"type": self.type, "data": list(self.data)}
        for name in ("id", "collection", "field"):
            if getattr(self, name) is not None:
                values[name] = getattr(self, name)
        return values


def get_input(transport: Transport, agent_id: str) -> AgentInput:
    """
    Return what an agent is to scrape (``GET /inputs/{agent_id}``).

    :param transport: Where to ask.
    :param agent_id: The agent.
    """
    return AgentInput.from_answer(transport.read(f"/inputs/{agent_id}"))


def set_input(transport: Transport, agent_id: str, new: AgentInput) -> None:
    """
    Set what an agent is to scrape (``PUT /inputs/{agent_id}``); twice is the same as once.

    :param transport: Where to ask.
    :param agent_id: The agent.
    :param new: The input, from :func:`check_input`.
    :raises UnexpectedAnswerError: if the answer does not say that the input was set.
    """
    answer = transport.send("PUT", f"/inputs/{agent_id}", new.to_dict(), repeatable=True)
    said = unwrap(answer.json())
    # Its own status, beside that of HTTP: a job must not scrape, and be paid for, the input of before.
    if not isinstance(said, Mapping) or not str(said.get("status_code", 200)).startswith("2"):
        raise answer.unexpected("does not say that the input was set")


def check_input(given: Any) -> AgentInput:
    """
    Return an input that can be sent.

    :param given: An :class:`AgentInput`, a mapping with its fields, or URLs as :func:`check_urls` takes them.
    :raises InvalidInputError: if it is none, or lacks something.
    """
    if isinstance(given, AgentInput):
        given = given.to_dict()
    if not isinstance(given, Mapping):
        return AgentInput("manual", check_urls(given))
    kind = str(given.get("type")).strip().lower()
    if kind in OF_URLS:
        return AgentInput(kind, check_urls(given.get("data")))
    if kind in OF_A_SOURCE:
        return _check_source(kind, given)
    raise InvalidInputError(
        f"The input's type {given.get('type')!r} is not known: it is 'manual' or 'url' with URLs in data, 'list' or "
        "'agent' with id and field."
    )


def _check_source(kind: str, given: Mapping[str, Any]) -> AgentInput:
    texts = {name: str(given[name]).strip() if given.get(name) is not None else "" for name in ("id", "field")}
    for name, text in texts.items():
        if not text:
            raise InvalidInputError(f"An input of type {kind!r} needs {name}: where its URLs come from.")
    data = given.get("data") or ()
    if isinstance(data, str) or not all(isinstance(each, str) for each in data):
        raise InvalidInputError(f"The data of an input of type {kind!r} is a list of text.")
    collection = given.get("collection")
    return AgentInput(
        kind, tuple(data), texts["id"], None if collection is None else check_collection(collection), texts["field"]
    )


def check_urls(value: Any) -> tuple[str, ...]:
    """
    Return URLs to scrape, in their order.

    :param value: Several URLs; or a text with one URL on each line, or with a list of them in JSON or Python, as a
        template renders one. Whitespace around a URL is removed.
    :raises InvalidInputError: if there is none, or one of them is no URL of http or https.
    """
    items = _read_text(value.strip()) if isinstance(value, str) else value
    if not isinstance(items, Iterable) or isinstance(items, bytes | bytearray | Mapping):
        raise InvalidInputError(f"urls is a list of URLs, not {_shown(items)}.")
    urls = tuple(_check_url(number, item) for number, item in enumerate(items, 1))
    if not urls:
        raise InvalidInputError(
            "urls is empty: there is nothing to scrape. Give at least one URL, or skip the task where there is none."
        )
    return urls


def _read_text(text: str) -> Any:
    if not text.startswith("["):
        return [line for line in text.splitlines() if line.strip()]
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise InvalidInputError(
        "urls begins like a list but is none in JSON or Python. In a template, {{ … | tojson }} writes one."
    )


def _check_url(number: int, item: Any) -> str:
    url = item.strip() if isinstance(item, str) else ""
    if not _is_url(url):
        raise InvalidInputError(
            f"urls: item {number} is no URL: {_shown(item)}. Each begins with http:// or https:// and has no space in "
            "it; in a text, each has a line of its own."
        )
    return url


def _is_url(text: str) -> bool:
    # urlsplit passes over line ends and tabs.
    if any(character.isspace() or not character.isprintable() for character in text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _shown(item: Any) -> str:
    """Return an item for a message: not the part of a URL that may hold a password or a signature."""
    if not isinstance(item, str):
        return f"a {type(item).__name__}"
    text, query, _ = _CREDENTIALS.sub("//***@", item).partition("?")
    return repr(text[:_SHOWN_CHARACTERS] + (query and "?…"))
