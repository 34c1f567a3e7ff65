"""
Checks each value that comes from a DAG, a template or a caller, here and nowhere else.

The public classes and the hook's methods use what is returned: plain Python values, whatever came (numpy, text from a
template, a ``Path``). A value that can't be used is an :class:`AgentyInputError` that names the parameter. A template
that came to nothing is never taken for a default.

It is cheap to import: operators do so whenever a DAG file is read.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import operator
import os
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_agenty.exceptions import AgentyInputError

T = TypeVar("T")

FILE_TYPES = ("result", "logs")
FORMATS = ("jsonl", "csv", "parquet")
COLUMN_TYPES = ("infer", "text")
ON_EMPTY = ("land", "fail", "skip")
ON_STOPPED = ("fail", "skip")
START, JOIN, SKIP, FAIL, STOP = IF_RUNNING = ("start", "join", "skip", "fail", "stop")

MAX_WHOLE_NUMBER = 2**53 - 1
"""The largest whole number that JSON carries without loss."""

MAX_SECONDS = timedelta(days=36525).total_seconds()
"""The longest time, a century: clocks, sleeps and dates can hold it."""

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CONNECTION_ID = re.compile(r"[\w#!()\-.:/\\]{1,250}")
_FILENAME = re.compile(r"[^/\\]{1,200}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_MAY_BE_SECRET = re.compile(
    r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/=]{24,}|.*(\{\s*[\"']|password|api_?key).*", re.DOTALL | re.IGNORECASE
)
_INVISIBLE = "\ufeff\u200b\u2060"  # comes along with a text that is copied, and is no whitespace to Python
_SHOWN_CHARACTERS = 100
_BEGINS_LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/")
_PATH_CHARACTERS = 4096

_EMPTY_HINT = "If it comes from a template, check that its source has a value; if it has a default, leave it out."
_NATIVE_HINT = (
    "If render_template_as_native_obj=True made that of a template, put quotes into the template: \"'{{ … }}'\"."
)


# Ids


def job_id(value: Any) -> int:
    """Return the id of a job: a whole number, or the text of one, as XCom and templates give it."""
    if is_nothing(value):
        raise AgentyInputError(
            "job_id is empty. It is what AgentyStartJobOperator returns: check that the task it comes from "
            "ran and returned one."
        )
    number = _whole(value, from_text=True)
    if number is None or not 1 <= number <= MAX_WHOLE_NUMBER:
        what = "is not the id of a job: it is a whole number of at most 16 digits, such as 3689994."
        raise _refused("job_id", value, what)
    return number


def agent_id(value: Any) -> str:
    """Return the id of an agent, as Agenty writes it: ``45l0wewqzk``."""
    if is_nothing(value):
        raise AgentyInputError(
            "agent_id is empty. Give the id of an agent: the last part of its page's address in Agenty, "
            "such as 45l0wewqzk."
        )
    text = _text("agent_id", value)
    if not _AGENT_ID.fullmatch(text):
        what = "is not the id of an agent: it holds letters, digits, '-' and '_' only, such as 45l0wewqzk."
        raise _refused("agent_id", value, what)
    return text


def project_id(value: Any) -> int:
    """Return the id of a project, which may be text."""
    return whole_number("project_id", value, at_least=1, from_text=True)


def agenty_conn_id(value: Any) -> str:
    """Return the id of the Airflow connection to Agenty."""
    return _connection_id("agenty_conn_id", value)


def storage_conn_id(value: Any) -> str | None:
    """Return the id of the Airflow connection to an object store; ``None``: the store's default."""
    return None if value is None else _connection_id("storage_conn_id", value)


def _connection_id(name: str, value: Any) -> str:
    text = _text(name, value)
    if "://" in text or not _CONNECTION_ID.fullmatch(text):
        # Not shown: it may be a connection, with its password.
        raise AgentyInputError(
            f"{name} is not the id of an Airflow connection: that holds letters, digits, '_', '-' and '.' only. "
            "Give the id under Admin, Connections, not the connection's URI or JSON."
        )
    return text


# Numbers


def whole_number(name: str, value: Any, *, at_least: int = 0, from_text: bool = False, hint: str = "") -> int:
    """Return a whole number; the text of one, as a template gives it, only where that is said."""
    number = _whole(value, from_text=from_text)
    if number is None or not at_least <= number <= MAX_WHOLE_NUMBER:
        raise _refused(name, value, f"is not a whole number of at least {at_least}. {hint}".rstrip())
    return number


def collection(value: Any) -> int:
    """Return the number of a collection, which may be text."""
    return whole_number(
        "collection", value, at_least=1, from_text=True, hint="An agent's collections are counted from 1."
    )


def offset(value: Any) -> int:
    """Return a number of lines to skip, which may be text."""
    return whole_number("offset", value, from_text=True, hint="It is the number of lines to skip.")


def seconds(name: str, value: Any, *, may_be_zero: bool = False) -> float:
    """Return a time in seconds, which may be a timedelta."""
    plain = _plain(value)
    number = plain.total_seconds() if isinstance(plain, timedelta) else _real(plain)
    if number is None or not 0 <= number <= MAX_SECONDS or (number == 0 and not may_be_zero):
        least = "from" if may_be_zero else "above"
        raise _refused(name, value, f"is neither a number of seconds nor a timedelta, {least} 0 to 100 years.")
    return number


def optional_seconds(name: str, value: Any) -> float | None:
    """Return a time in seconds, which may be a timedelta; ``None``: no limit."""
    return None if value is None else seconds(name, value)


def share(name: str, value: Any) -> float | None:
    """Return a share of something; ``None``: any."""
    what = "is not a share: it is a number from 0 to 1, or None."
    return _number_up_to(1, name, value, what)


def page_credits(name: str, value: Any) -> float | None:
    """Return a number of page credits; ``None``: any."""
    what = "is not a number of page credits: it is a number from 0, or None."
    return _number_up_to(MAX_WHOLE_NUMBER, name, value, what)


def epoch_seconds(name: str, value: Any) -> float | None:
    """Return a moment in seconds since the epoch; ``None``: never."""
    # As far as a timeout may reach from now, and some more.
    return _number_up_to(3 * MAX_SECONDS, name, value, "is not a moment: it is in seconds since the epoch, or None.")


def _number_up_to(most: float, name: str, value: Any, what: str) -> float | None:
    if value is None:
        return None
    number = _real(_plain(value))
    if number is None or not 0 <= number <= most:
        raise _refused(name, value, what)
    return number


def aware_datetime(name: str, value: Any) -> datetime:
    """Return a moment that has a time zone."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise _refused(name, value, "is not a datetime with a time zone.")
    return value


# Yes or no, one of some, text


def boolean(name: str, value: Any) -> bool:
    """Return what is either true or false. Text is neither: ``"no"`` and ``"False"`` count as true in Python."""
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise _refused(name, value, "is neither True nor False. Give one of them: this parameter is not templated.")
    return plain


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return one of some words."""
    plain = _plain(value)
    if not isinstance(plain, str) or plain not in choices:
        *others, last = (repr(each) for each in choices)
        raise _refused(name, value, f"is not known: it is {', '.join(others)} or {last}.")
    return plain


def choices(name: str, value: Any, known: Collection[str]) -> tuple[str, ...]:
    """Return one or several words of some, each once, in the order in which they are known."""
    chosen = {choice(name, each, known) for each in items_of(value) or [value]}
    return tuple(each for each in known if each in chosen)


def text(name: str, value: Any) -> str:
    """Return a text in one line, such as the name of an agent."""
    return _text(name, value)


def filename(value: Any) -> str | None:
    """Return the name that a file shall have in its link, such as ``books.csv``; ``None``: Agenty's own."""
    if value is None:
        return None
    text = _text("filename", value)
    if not _FILENAME.fullmatch(text) or text in {".", ".."}:
        raise _refused("filename", value, "is not a plain file name, such as books.csv.")
    return text


def path(value: Any) -> str:
    """Return a local path or a URL as text; whether something can be landed there is for the landing to say."""
    return _path("path", value, hint="Give a local path or a URL such as s3://bucket/key.")


def folder(name: str, value: Any) -> str | None:
    """Return a local folder as text; ``None``: the system's own."""
    if value is None:
        return None
    text = _path(name, value, hint="Give the path of a local folder.")
    if _BEGINS_LIKE_A_URL.match(text):
        raise _refused(name, text, "is a URL. Give the path of a local folder.")
    return text


def _path(name: str, value: Any, *, hint: str) -> str:
    text = path_text(value)
    # A number would be a file of that name in the worker's working directory.
    if _whole(text, from_text=False) is not None:
        raise _refused(name, value, f"is not a path. {hint}")
    text = _text(name, text, hint=hint)
    if len(text) > _PATH_CHARACTERS:
        raise _refused(name, text, f"is too long: a path has at most {_PATH_CHARACTERS} characters.")
    return text


def path_text(value: Any) -> Any:
    """Return a path object as text, in which Airflow finds templates; anything else as it is."""
    if isinstance(value, os.PathLike):
        with contextlib.suppress(TypeError):
            return os.fspath(value)
        return value
    # ObjectStoragePath, which is no PathLike since Airflow 3.2.
    return str(value) if hasattr(value, "protocol") and hasattr(value, "storage_options") else value


def check_function(name: str, value: Any) -> None:
    """Refuse what can't be called; ``None``: nothing is called."""
    if value is not None and not callable(value):
        raise _refused(name, value, "can't be called. Give a function, or None.")


# What an agent scrapes


def urls(value: Any, name: str = "urls") -> tuple[str, ...]:
    """
    Return URLs to scrape, in their order.

    They come as a list, or as text: one URL on each line, or a list in JSON or Python, as a template renders one.
    """
    items = _read_lines(name, value.strip()) if isinstance(value, str) else items_of(value)
    if items is None:
        raise AgentyInputError(f"{name} is a list of URLs, not {shown(value)}.")
    if not items:
        raise AgentyInputError(
            f"{name} is empty: there is nothing to scrape. Give at least one URL, or skip the task where there is none."
        )
    return tuple(_url(f"{name}: item {number}", item) for number, item in enumerate(items, 1))


def _read_lines(name: str, text: str) -> list[Any] | None:
    if not text.startswith("["):
        return [line for line in text.splitlines() if line.strip()]
    for read in (json.loads, ast.literal_eval):
        try:
            return items_of(read(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise AgentyInputError(
        f"{name} begins like a list but is none in JSON or Python. In a template, {{{{ … | tojson }}}} writes one."
    )


def _url(where: str, item: Any) -> str:
    plain = _plain(item)
    url = plain.strip() if isinstance(plain, str) else ""
    if not _is_url(url):
        raise AgentyInputError(
            f"{where} is no URL: {shown(item)}. Each begins with http:// or https:// and has no space in it; in a "
            "text, each has a line of its own."
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


# What all kinds have in common


def optional(check: Callable[[Any], T], value: Any) -> T | None:
    """Return ``None`` for ``None``, else what a check makes of a value."""
    return None if value is None else check(value)


def is_nothing(value: Any) -> bool:
    """Return whether a value is none: also as text, which is what a template makes of it."""
    return value is None or (isinstance(value, str) and _stripped(value) in {"", "None"})


def shown(value: Any) -> str:
    """Return a value as a message may show it: bounded, and without what may be a secret."""
    if isinstance(value, str):
        text = str.__str__(value)
        begin, end = text.find("//"), text.rfind("@")
        if 0 <= begin < end:
            text = f"{text[:begin]}//***{text[end:]}"
        text, query, _ = text.partition("?")
        if _MAY_BE_SECRET.fullmatch(text[:1000]):
            return "a text that is not shown because it may hold a secret"
        return repr(text[:_SHOWN_CHARACTERS] + ("…" if len(text) > _SHOWN_CHARACTERS else query and "?…"))
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    if value is None or isinstance(value, int | float | timedelta):
        return repr(value)
    return f"a {type(value).__name__}"


def _refused(name: str, value: Any, what: str) -> AgentyInputError:
    text = shown(value)
    named = f"{name}, {text}," if text.startswith("a ") else f"{name} {text}"
    return AgentyInputError(f"{named} {what}")


def items_of(value: Any) -> list[Any] | None:
    """Return what is in a list, or in something like one; ``None`` if it is no such thing."""
    if isinstance(value, str | bytes | bytearray | Mapping):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def _plain(value: Any) -> Any:
    """Return Python's own value for one of numpy, and for one of a class made of ``str``, such as a ``StrEnum``."""
    if isinstance(value, str):
        return str.__str__(value)
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is None or getattr(value, "ndim", None) != 0:
        return value
    # numpy makes a number of a time in nanoseconds, and None of one that is none.
    plain = (value.astype("timedelta64[us]") if kind == "m" else value).item()
    return value if plain is None else plain


def _whole(value: Any, *, from_text: bool) -> int | None:
    """Return a whole number; ``None`` if it is none. A bool and a float are none."""
    plain = _plain(value)
    if isinstance(plain, bool):
        return None
    if isinstance(plain, str):
        return int(plain) if from_text and _WHOLE_NUMBER.fullmatch(plain.strip()) else None
    try:
        return operator.index(plain)
    except TypeError:
        return None


def _real(value: Any) -> float | None:
    """Return a number; ``None`` if it is none, or not a finite one."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _stripped(text: str) -> str:
    return text.strip().strip(_INVISIBLE).strip()


def _text(name: str, value: Any, *, hint: str = "") -> str:
    """Return text without whitespace around it; a whole number is text that Airflow's native rendering changed."""
    if is_nothing(value):
        raise AgentyInputError(f"{name} is empty: it came as {shown(value)}. {hint or _EMPTY_HINT}")
    plain = _plain(value)
    number = _whole(plain, from_text=False)
    if number is not None and abs(number) <= 10**100:
        return str(number)
    if not isinstance(plain, str):
        raise _refused(name, value, f"is not text. {hint or _NATIVE_HINT}")
    plain = _stripped(plain)
    if _CONTROL_CHARACTER.search(plain):
        raise _refused(name, value, "has a control character or half a character in it. Remove it.")
    return plain
