"""What is promised of each call, whatever Agenty answers, in one function: :func:`broken_promises`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import pickle
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_provider_agenty.airflow_compat import AirflowSensorTimeout, AirflowSkipException
from airflow_provider_agenty.exceptions import AgentyError
from tests.hostile.honest import SECRETS

LONGEST_TEXT = 4_000
"""The most characters of a text field in events, XComs and messages."""

LONGEST_SENTENCE = LONGEST_TEXT + 500
"""The most characters of a message that quotes one."""

FORGED = "[2026-01-01T00:00:00Z] INFO - forged"
"""What bad answers put behind a line end: no line of a log or a message may begin with it."""

ALLOWED_ERRORS = (AgentyError, AirflowSkipException, AirflowSensorTimeout)


@dataclass
class Outcome:
    """
    What a call came to.

    :param value: What it returned.
    :param error: What it raised.
    :param stored: What it gave to Airflow to store meanwhile: XComs, events.
    :param records: What was logged meanwhile, at all levels, before anything is masked.
    :param printed: What came out of the process meanwhile.
    :param folder: Where it might land files; whatever else there is around it should not be.
    :param has_text: Whether all text in the value is the provider's own.
    """

    value: Any = None
    error: BaseException | None = None
    stored: list[Any] = field(default_factory=list)
    records: list[logging.LogRecord] = field(default_factory=list)
    printed: str = ""
    folder: Path | None = None
    has_text: bool = True


def broken_promises(outcome: Outcome) -> Iterator[str]:
    """Yield a sentence for each promise that a call broke; none, if all is well."""
    if outcome.error is not None:
        yield from _of_error(outcome.error)
    value = primitive(outcome.value)
    yield from _of_stored("the value", value) if outcome.has_text else _of_rows(value)
    for stored in outcome.stored:
        yield from _of_stored("what is stored", stored)
    for record in outcome.records:
        yield from _of_record(record)
    yield from _of_secrets("the standard output", outcome.printed)
    yield from _of_files(outcome.folder)


def primitive(value: Any) -> Any:
    """Return what a DAG would hand to Airflow of a value."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # An entry of a log, which has no dictionary of its own.
        return {f.name: str(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [primitive(each) for each in value]
    return value


# What is stored


def _of_stored(what: str, value: Any) -> Iterator[str]:
    for problem in _unstorable(value):
        yield f"{what} can't be stored: {problem}"
    for path, leaf in _leaves(value):
        if isinstance(leaf, str):
            longest = LONGEST_SENTENCE if path.endswith("message") else LONGEST_TEXT
            # The link of a task's button says more of an agent than the agent's id.
            yield from _of_text(f"{what}, {path}", leaf, longest)


def _of_rows(value: Any) -> Iterator[str]:
    """Rows are data of the user, of any length; they still have to be text that can be written."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        yield f"the rows can't be written: {type(error).__name__}: {str(error)[:100]}"


def _unstorable(value: Any) -> Iterator[str]:
    """Yield why Airflow can't store a value, or send it from one of its processes to another."""
    for name, store in _STORES.items():
        try:
            store(value)
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {str(error)[:100]}"


def _stores() -> dict[str, Any]:
    stores: dict[str, Any] = {"JSON": lambda value: json.dumps(value, ensure_ascii=False, allow_nan=False).encode()}
    for module in ("airflow.sdk.serde", "airflow.serialization.serde"):
        try:
            stores["Airflow's serializer"] = import_module(module).serialize
        except ImportError:
            continue
        break
    with contextlib.suppress(ImportError):
        # Between Airflow's processes, from 3.1 on.
        stores["msgpack"] = import_module("msgspec.msgpack").encode
    stores["64 bits"] = lambda value: [_check_bits(leaf) for _, leaf in _leaves(value)]
    return stores


def _check_bits(leaf: Any) -> None:
    if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
        raise OverflowError(f"a number of {leaf.bit_length()} bits")


_STORES = _stores()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield f"{path} (a key)", key
            yield from _leaves(each, f"{path}.{key}"[-60:])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each, path)
    else:
        yield path, value


# What is said


def _of_error(error: BaseException) -> Iterator[str]:
    if not isinstance(error, ALLOWED_ERRORS):
        yield f"it raised a raw {type(error).__module__}.{type(error).__name__}: {str(error)[:200]!a}"
    else:
        yield from _of_text("the error's text", str(error), LONGEST_SENTENCE)
        yield from _of_carrying(error)
    for link in _chain(error):
        name = type(link).__name__
        yield from _of_secrets(f"the text of {name}", str(link))
        yield from _of_secrets(f"the arguments of {name}", repr(link.args))
        for attribute, value in vars(link).items():
            yield from _of_secrets(f"{attribute} of {name}", f"{value!r} {value!s}")
            if isinstance(link, AgentyError):
                yield from _of_stored(f"{attribute} of {name}", primitive(value))


def _of_carrying(error: BaseException) -> Iterator[str]:
    for name, carry in (("pickle", lambda each: pickle.loads(pickle.dumps(each))), ("copy", copy.deepcopy)):
        try:
            carried = carry(error)
        except Exception as problem:
            yield f"{type(error).__name__} does not survive {name}: {type(problem).__name__}: {str(problem)[:100]}"
        else:
            if type(carried) is not type(error) or str(carried) != str(error) or set(vars(carried)) != set(vars(error)):
                yield f"{type(error).__name__} is another error after {name}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += [link.__cause__, link.__context__]


def _of_record(record: logging.LogRecord) -> Iterator[str]:
    text = record.getMessage()
    if record.exc_info:
        text += logging.Formatter().formatException(record.exc_info)
    yield from _of_secrets(f"the log of {record.name}", text)
    if record.name.startswith("airflow_provider_agenty"):
        yield from _of_text(f"the log of {record.name}", text, LONGEST_SENTENCE)


def _of_text(what: str, text: str, longest: int) -> Iterator[str]:
    if len(text) > longest:
        yield f"{what} has {len(text)} characters"
    shown = text[: 2 * LONGEST_SENTENCE]
    odd = sorted({c for c in shown if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cs"}})
    if odd:
        yield f"{what} has characters that obey or that can't be sent: {''.join(odd)[:20]!a}"
    if f"\n{FORGED}" in shown.replace("\r", "\n"):
        yield f"{what} has a forged line"
    # More pages than there are: then there is no share to tell.
    untrue = [found[0] for found in re.finditer(r"(\d{1,18})/(\d{1,18}) pages", shown) if int(found[1]) > int(found[2])]
    if untrue:
        yield f"{what} says {untrue[0]}"
    yield from _of_secrets(what, text)


def _of_secrets(what: str, text: str) -> Iterator[str]:
    found = SECRETS.found_in(text)
    if found:
        yield f"{what} holds a secret: …{found!a}…"


# What is written


def _of_files(folder: Path | None) -> Iterator[str]:
    if folder is not None:
        outside = [path for path in folder.parent.rglob("*") if path.is_file() and path.parent != folder]
        if outside:
            yield f"a file was written outside of its folder: {outside[0]}"
