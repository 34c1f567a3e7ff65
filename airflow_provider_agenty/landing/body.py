"""The body of a download: how far it is read, and what its headers say of it, none of which need be true."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import requests

from airflow_provider_agenty.landing.content_encoding import Decoder

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[!#-~]{0,1000}"')
_LONGEST_DATE = 100  # characters


class Body:
    """The body that is being read, begun by a whole answer."""

    def __init__(self, answer: requests.Response) -> None:
        found = _content_range(answer)
        self.total = found[2] if found else _length(answer)
        self.end = self.total  # where the answer ends that it is read from
        self.encoding = _encoding(answer)
        self.decoder = Decoder(self.encoding)
        self.etag = answer.headers.get("ETag")
        self.validator = _validator(answer)
        self.offset = 0

    def goes_on_with(self, answer: requests.Response) -> bool:
        """Tell whether an answer to a range is the rest of this body, and note what it says about the length."""
        found = _content_range(answer)
        if found is None:
            return False
        first, last, total = found
        if self.total is None:
            self.total = total
        self.end = last + 1
        return (
            first == self.offset
            and total in (None, self.total)
            and first <= last
            and (self.total is None or last < self.total)
            and _length(answer) in (None, last + 1 - first)
            and _encoding(answer) == self.encoding
            and answer.headers.get("ETag", self.etag) == self.etag
            and (self.etag is not None or answer.headers.get("Last-Modified", self.validator) == self.validator)
        )


def contradiction(answer: requests.Response, before: Body | None) -> str | None:
    """Say what is wrong with an answer of 200, by its own headers and by what is known of the same body."""
    length = _length(answer)
    if "Content-Length" in answer.headers and length is None and not _is_chunked(answer):
        return "it announced a length that is not a number"
    if "Content-Range" in answer.headers:
        first, last, total = _content_range(answer) or (None, 0, 0)
        if first != 0 or total != last + 1 or length not in (None, total):
            return "it sent a part of the file as if it were the whole"
    body = Body(answer)
    is_the_same = before is not None and body.validator is not None and body.validator == before.validator
    if before and is_the_same and None not in (before.total, body.total) and before.total != body.total:
        return "it announced another length than before for the same file"
    return None


def _is_chunked(answer: requests.Response) -> bool:
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def _length(answer: requests.Response) -> int | None:
    """Return the length of an answer's body. Of several values, as of several headers, all must be the same."""
    values = {value.strip() for value in answer.headers.get("Content-Length", "").split(",")}
    value = values.pop()
    return int(value) if not values and not _is_chunked(answer) and _NUMBER.fullmatch(value) else None


def _content_range(answer: requests.Response) -> tuple[int, int, int | None] | None:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return found and (int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3]))


def _encoding(answer: requests.Response) -> str:
    return answer.headers.get("Content-Encoding", "").strip().lower()


def _validator(answer: requests.Response) -> str | None:
    """
    Return what RFC 9110 lets identify a body, byte for byte.

    That is a strong ``ETag``, or a ``Last-Modified`` that is at least a second older than the answer.
    """
    etag = answer.headers.get("ETag", "")
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    changed = answer.headers.get("Last-Modified", "")
    moment, now = _date(changed), _date(answer.headers.get("Date", ""))
    return changed if moment and now and now - moment >= timedelta(seconds=1) else None


def _date(value: str) -> datetime | None:
    """Read a date of HTTP; what is none, or can't be compared with others, is ``None``."""
    if len(value) > _LONGEST_DATE or not value.isprintable():
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return None
