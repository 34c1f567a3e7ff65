"""
The border where an answer of Agenty becomes our data: its size, depth, text, numbers and times are bounded here.

Behind it nothing is checked again. All values can be logged, put into XCom and sent with a trigger's event.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_plus

LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer, after a Content-Encoding was undone."""

MOST_VALUES = 2_000_000
"""Values that are decoded of one answer."""

LONGEST_TEXT = 4_000
"""Characters of a text that goes on to logs, XCom and events."""

LONGEST_NAME = 100
"""Characters of a name: a state, a type, a host."""

MOST_NESTED = 100
"""Levels of lists and objects: Airflow, and readers of our files, go through them by recursion."""

SHORTEST_SECRET = 5
"""Characters of a key that texts are searched for: a shorter one would be found in ordinary words."""

_INT64 = range(-(2**63), 2**63)
_LONGEST_INT64 = len(str(-(2**63)))
_LARGEST_JOB_ID = 2**53 - 1  # the largest that JSON carries safely; Python's hashes repeat not far above it
_LONGEST_MOMENT = 64

_EXPONENT = re.compile("[eE]")
_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DURATION = re.compile(r"(?:(\d{1,6})\.)?(\d{1,6}):(\d{2}):(\d{2})(?:\.(\d+))?")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Characters that a terminal obeys, that end a line, or that turn the direction of writing around.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_UNSAFE_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_END = r"[^\s\"'<>]*"
_SECRETS_OF_LINKS = (
    (re.compile(rf"(\?|%3F)(?=[\w.~%-]{{1,100}}?(?:=|%3D)){_END}", re.IGNORECASE), r"\1***"),
    (re.compile(r"//[^/\s\"'<>@]+@"), "//***@"),
    (
        re.compile(
            rf"\b(x-(?:amz|goog)-[\w-]{{1,40}}|sig(?:nature)?|api_?key|(?:access_?)?token)={_END}", re.IGNORECASE
        ),
        r"\1=***",
    ),
)
_SHORTER = "… (shortened)"

Clean = Callable[[str], str]


def read_json(body: bytes, *, key: str = "") -> Any:
    """
    Decode an answer, with all texts in it free of the key and of halves of surrogate pairs.

    A number that 64 bits can't hold becomes ``None``, and so does what JSON does not have, such as ``NaN``.

    :raises ValueError: if it is no JSON in UTF-8, nested too deep, or holds too many values.
    """
    if holds_too_many_values(body):
        raise ValueError("too many values")
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    try:
        values = json.loads(text, parse_int=read_int64, parse_float=read_fraction, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if is_nested_deeper(values, MOST_NESTED):
        raise ValueError("nested too deep")
    # An escape may hide either of the two.
    if "\\" in text or any(form in text for form in _forms_of(key)):
        return _map_texts(values, lambda found: hide_key(whole_characters(found), key))
    return values


def holds_too_many_values(body: bytes) -> bool:
    """Return whether decoding could take far more memory than the body: ``{},{},…`` takes 24 times as much."""
    return sum(map(body.count, (b",", b"{", b"["))) > MOST_VALUES


def is_nested_deeper(values: Any, most: int) -> bool:
    """Return whether decoded JSON is nested deeper than so many levels."""
    level = [values]
    for _ in range(most):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if type(child) in (dict, list)
        ]
        if not level:
            return False
    return True


# Numbers


def read_int64(text: str) -> int | None:
    """Return a whole number of JSON; ``None`` if 64 bits do not hold it, or if it is none."""
    # A longer text is not tried: Python refuses some, and takes quadratic time for others.
    if len(text) > _LONGEST_INT64 or not text.removeprefix("-").isdigit():
        return None
    value = int(text)
    return value if value in _INT64 else None


def read_fraction(text: str) -> float | None:
    """Return a number of JSON as the float next to it; ``None`` if it is too large or too small for one."""
    value = float(text)
    return None if not math.isfinite(value) or (value == 0 and significant_digits(text)) else value


def significant_digits(text: str) -> str:
    """Return the digits that make up a number of JSON, whatever its size."""
    return _EXPONENT.split(text)[0].replace("-", "").replace(".", "").strip("0")


def read_integer(value: Any) -> int | None:
    """Return a whole number of at most 64 bits, which may come as text; ``None`` if it is none."""
    if isinstance(value, bool) or (isinstance(value, str) and len(value) > LONGEST_NAME):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number in _INT64 else None


def read_job_id(value: Any) -> int | None:
    """Return the id of a job; ``None`` if it is none."""
    number = read_integer(value)
    return number if number is not None and 0 < number <= _LARGEST_JOB_ID else None


def read_boolean(value: Any) -> bool | None:
    """Return what is true or false, which may come as 0 and 1 or as text; ``None`` if it is neither."""
    known = {"true": True, "1": True, "false": False, "0": False}
    return known.get(str(value).strip().lower()) if isinstance(value, str | int) else None


# Texts


def _map_texts(values: Any, change: Clean) -> Any:
    if isinstance(values, str):
        return change(values)
    if isinstance(values, list):
        return [_map_texts(each, change) for each in values]
    if isinstance(values, dict):
        return {change(name): _map_texts(each, change) for name, each in values.items()}
    return values


def whole_characters(text: str) -> str:
    """Return a text that can be written as UTF-8: U+FFFD stands for each half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


@functools.lru_cache(maxsize=64)
def _forms_of(key: str) -> tuple[str, ...]:
    """Return the ways in which a key may be written, the longest first; none for what is too short to be looked for."""
    if len(key) < SHORTEST_SECRET:
        return ()
    in_json = json.dumps(key)[1:-1]
    quoted = {quote(key, safe=""), quote(key), quote_plus(key)}
    in_lower_case = {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in quoted}
    twice = json.dumps(in_json)[1:-1]
    return tuple(
        sorted({key, in_json, twice, in_json.replace("/", "\\/"), *quoted, *in_lower_case}, key=len, reverse=True)
    )


def hide_key(text: str, key: str) -> str:
    """Return a text with ``***`` in place of the API key, also where that is quoted for a URL or for JSON."""
    for form in _forms_of(key):
        text = text.replace(form, "***")
    return text


def clean_text(text: str, *, key: str = "", longest: int = LONGEST_TEXT, lines: bool = False) -> str:
    r"""
    Return a text for people: bounded, control characters shown (``\x1b``), without the key and secrets of links.

    :param lines: Whether it may have several lines. Default: a line end is shown as ``\n``.
    """
    # Cut first: what follows takes time with each character. A secret must not be cut in two, hence the margin.
    if len(text) > 2 * longest + 4_000:
        text = text[: 2 * longest + 4_000]
    text = hide_key(whole_characters(text), key)
    if text.isalnum() and text.isascii():
        return text[:longest]
    for pattern, replacement in _SECRETS_OF_LINKS:
        text = pattern.sub(replacement, text)
    text = (_UNSAFE if lines else _UNSAFE_IN_LINE).sub(_shown, text)
    return text if len(text) <= longest else text[: longest - len(_SHORTER)] + _SHORTER


def _shown(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def read_text(value: Any, clean: Clean) -> str | None:
    """Return a text field; ``None`` if it is empty, or no text at all."""
    if isinstance(value, str):
        return clean(value) if value else None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_name(value: Any, clean: Clean) -> str | None:
    """Return a short text that names something, such as a type."""
    name = read_text(value, clean)
    return name[:LONGEST_NAME] if name else None


def read_agent_id(value: Any) -> str | None:
    """Return the id of an agent; ``None`` if it is none: ids end up in paths and addresses."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and _AGENT_ID.fullmatch(text) else None


# Times


# Each poll reads the same times of the same jobs again.
_remembered = functools.lru_cache(maxsize=16_384)


def read_moment(value: Any) -> datetime | None:
    """Return a time as Agenty writes it, with up to seven fractional digits, aware (UTC); ``None`` if it is none."""
    return _moment_of(value) if isinstance(value, str) and 0 < len(value) <= _LONGEST_MOMENT else None


@_remembered
def _moment_of(text: str) -> datetime | None:
    try:
        # Python cuts off digits beyond microseconds.
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_duration(value: Any) -> timedelta | None:
    """Return a duration, which Agenty writes as ``HH:MM:SS``; ``None`` if it is none."""
    return _duration_of(value) if isinstance(value, str) and len(value) <= _LONGEST_MOMENT else None


@_remembered
def _duration_of(text: str) -> timedelta | None:
    matched = _DURATION.fullmatch(text.strip())
    if not matched:
        return None
    *whole, fraction = matched.groups(default="0")
    days, hours, minutes, seconds = map(int, whole)
    microseconds = int(fraction[:6].ljust(6, "0"))
    return timedelta(days, seconds, microseconds, minutes=minutes, hours=hours)


@_remembered
def read_date(value: str | None) -> datetime | None:
    """Return the time in a header such as ``Date``, aware (UTC); ``None`` if it is none."""
    try:
        moment = parsedate_to_datetime((value or "")[:LONGEST_NAME])
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def read_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Return how many seconds a ``Retry-After`` asks to wait, as a number or a date; ``None`` if it asks nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = read_date(text)
    return None if moment is None else max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)
