"""Rows as JSON Lines: an object on each line, its numbers as they came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_agenty.api.json_rows import NumberText

_MARK = "\udc00"
"""Stands around the text of a number until it is written: half of a surrogate pair, which no text of a row holds."""


Page = Sequence[Mapping[str, Any]]


def json_lines(pages: Iterable[Page], *, as_text: bool) -> Iterator[bytes]:
    """Give rows as UTF-8, each on a line, its keys in their order; as text: each value but null is one."""
    for page in pages:
        rows: Iterable[Mapping[str, Any]] = page
        if as_text:
            rows = ({name: text_of(value) for name, value in row.items()} for row in page)
        yield b"".join(map(json_line, rows))


def json_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line."""
    return f"{_json_of(row)}\n".encode()


def text_of(value: Any) -> str | None:
    """Return a value as text: text and ``None`` stay as they are, anything else becomes JSON."""
    return value if value is None or isinstance(value, str) else _json_of(value)


def _marked(value: Any) -> str:
    if isinstance(value, NumberText):
        return f"{_MARK}{value.text}{_MARK}"
    raise TypeError(f"{type(value).__name__} is no value of JSON")


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), default=_marked).encode


def _json_of(value: Any) -> str:
    text = _encode(value)
    return text.replace(f'"{_MARK}', "").replace(f'{_MARK}"', "") if _MARK in text else text
