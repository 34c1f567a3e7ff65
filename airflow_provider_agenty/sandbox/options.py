"""What can be set about a sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

ENCODINGS = (None, "gzip", "gzip-members")
LENGTHS = ("content-length", "chunked", "none")


@dataclass
class DownloadOptions:
    """
    How the download port serves files.

    :param ranges: whether ``Range`` is obeyed.
    :param etag: whether files have an ``ETag``.
    :param encoding: ``None``; ``"gzip"``, one member; ``"gzip-members"``, several members after one another.
        Only for clients that accept gzip, and without ranges.
    :param length: ``"content-length"``; ``"chunked"``; or ``"none"``: the body ends with the connection.
    :param link_seconds: how long a link can be used.
    """

    ranges: bool = True
    etag: bool = True
    encoding: str | None = None
    length: str = "content-length"
    link_seconds: float = 300.0

    def set(self, **changes: Any) -> None:
        """
        Change some of them.

        :raises ValueError: there is no such option or no such value.
        """
        names = [each.name for each in fields(self)]
        for name in changes:
            if name not in names:
                raise ValueError(f"There is no download option {name!r}; there are {', '.join(names)}.")
        if changes.get("encoding") not in ENCODINGS:
            raise ValueError("encoding must be null, 'gzip' or 'gzip-members'.")
        if changes.get("length", self.length) not in LENGTHS:
            raise ValueError(f"length must be one of {', '.join(LENGTHS)}.")
        for name, value in changes.items():
            setattr(self, name, value)


@dataclass
class ApiOptions:
    """
    How the API answers.

    :param key: the API key.
    :param forbidden_key: a key that is known but may do nothing: every call answers 403.
    :param page_cap: most rows or jobs on one page, whatever ``limit`` asks for.
    :param stop_status: HTTP status of an answered stop.
    :param quirks: names from :data:`airflow_provider_agenty.sandbox.answers.QUIRKS`.
    """

    key: str
    forbidden_key: str
    page_cap: int = 1000
    stop_status: int = 400
    quirks: frozenset[str] = field(default_factory=frozenset)
