"""Ids and numbers that go into a request, checked before anything is sent."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_agenty.api.errors import InvalidInputError

FILE_TYPES = ("result", "logs")
"""What an export can be of."""

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NUMBER = re.compile(r"[0-9]{1,18}")


def check_agent_id(value: Any) -> str:
    """
    Return the id of an agent, as Agenty writes it.

    :param value: The id, such as ``45l0wewqzk``; surrounding whitespace is removed.
    :raises InvalidInputError: if it is empty or can't be an agent's id.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InvalidInputError(
            "agent_id is empty. Give the id of an agent: the last part of its page's address in Agenty, "
            "such as 45l0wewqzk."
        )
    if not isinstance(value, str) or not _AGENT_ID.fullmatch(value.strip()):
        raise InvalidInputError(
            f"agent_id {value!r} is not the id of an agent: it holds letters, digits, '-' and '_' only, "
            "such as 45l0wewqzk."
        )
    return value.strip()


def check_job_id(value: Any) -> int:
    """
    Return the id of a job as a number.

    :param value: The id as a number, or as text as XCom and templates give it.
    :raises InvalidInputError: if it is empty or can't be a job's id.
    """
    if value is None or (isinstance(value, str) and value.strip() in {"", "None"}):
        raise InvalidInputError(
            "job_id is empty. It is what AgentyStartJobOperator returns: check that the task it comes from "
            "ran and returned one."
        )
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) and int(value) > 0:
        return int(value)
    raise InvalidInputError(f"job_id {value!r} is not the id of a job: it is a whole number, such as 3689994.")


def check_collection(value: Any) -> int:
    """
    Return the number of a collection.

    :param value: The number, counted from 1, as a number or as text.
    :raises InvalidInputError: if it is not a whole number of at least 1.
    """
    return _whole_number("collection", value, at_least=1, hint="An agent's collections are counted from 1.")


def check_offset(value: Any) -> int:
    """
    Return a number of lines to skip.

    :param value: The number, 0 or more.
    :raises InvalidInputError: if it is not a whole number of at least 0.
    """
    return _whole_number("offset", value, at_least=0, hint="It is the number of lines to skip.")


def check_file_type(value: Any) -> str:
    """
    Return what an export is of.

    :param value: ``result`` or ``logs``.
    :raises InvalidInputError: if it is anything else.
    """
    if value not in FILE_TYPES:
        raise InvalidInputError(f"file_type {value!r} is not known: it is 'result' or 'logs'.")
    return str(value)


def check_filename(value: Any) -> str:
    """
    Return the name that a file shall have in its link.

    :param value: A name without folders, such as ``books.csv``.
    :raises InvalidInputError: if it is not a plain name.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[^/\\\x00-\x1f\x7f]{1,200}", value) or value in {".", ".."}:
        raise InvalidInputError(f"filename {value!r} is not a plain file name, such as books.csv.")
    return value


def _whole_number(name: str, value: Any, *, at_least: int, hint: str) -> int:
    number = value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or number < at_least:
        raise InvalidInputError(f"{name} {value!r} is not a whole number of at least {at_least}. {hint}")
    return number
