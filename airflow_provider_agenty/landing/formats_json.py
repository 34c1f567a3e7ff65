"""Rows as JSON Lines: an object on each line, as it came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


class JsonLines:
    """
    Rows as UTF-8, each followed by a line feed, its keys in their order.

    :param pages: the rows, page by page.
    """

    def __init__(self, pages: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        self._pages = pages
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        """Give a line for each row, a page at a time."""
        for page in self._pages:
            self.rows += len(page)
            yield b"".join(map(json_line, page))


def json_line(value: Any) -> bytes:
    """
    Write a value as a line.

    :param value: a row, or anything else that JSON can hold.
    """
    try:
        return f"{_encode(value)}\n".encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair: JSON can have one, but only as an escape.
        return f"{json.dumps(value, separators=(',', ':'))}\n".encode()


def text_of(value: Any) -> str | None:
    """
    Return a value as text, for formats that have nothing else to put it in.

    :param value: a value out of JSON: text and ``None`` stay as they are, anything else becomes JSON.
    """
    return value if value is None or isinstance(value, str) else _encode(value)


def without_lone_surrogates(text: str) -> str:
    """
    Return a text that can be written as UTF-8: halves of surrogate pairs are replaced by U+FFFD.

    :param text: any text.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
