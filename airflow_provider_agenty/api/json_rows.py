"""The JSON of a page of rows: decoded so that all that is in it can be stored, and its numbers written as they came."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.validation import (
    MOST_NESTED,
    is_nested_deeper,
    read_fraction,
    read_int64,
    significant_digits,
)

_DIGITS_OF_A_FLOAT = 17  # significant digits that tell any float from all others
_SURROGATE = re.compile("[\ud800-\udfff]")
# Each escape is matched, so that the second half of an escaped backslash is not taken for the beginning of one.
_ESCAPE = re.compile(
    r"(\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F])))"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


@dataclass(frozen=True, slots=True)
class NumberText:
    """A number kept as its text, where Python would write another: ``19.90``, ``1e400``, one of 20 digits."""

    text: str

    @property
    def value(self) -> int | float | None:
        """The number, if 64 bits hold it: a whole one, or a fraction of as many digits as a float has."""
        if self.text.removeprefix("-").isdigit():
            return read_int64(self.text)
        return read_fraction(self.text) if len(significant_digits(self.text)) <= _DIGITS_OF_A_FLOAT else None


def keep_integer(text: str) -> int | NumberText:
    """Return a whole number of JSON so that its text can be written again."""
    value = read_int64(text)
    return NumberText(text) if value is None or text == "-0" else value


def keep_fraction(text: str) -> float | NumberText:
    """Return a number of JSON with a fraction or an exponent so that its text can be written again."""
    value = float(text)
    return value if repr(value) == text else NumberText(text)


class UnreadableRowsError(ValueError):
    """A body is no JSON that can be used. Its text goes on with "the answer"."""


@dataclass(frozen=True)
class DecodedRows:
    """A decoded body, and whether it held NaN or Infinity, which are no JSON and are texts in the values."""

    values: Any
    has_no_numbers: bool


def decode_rows(body: bytes, *, keep_numbers: bool) -> DecodedRows:
    """
    Decode a page of rows.

    No text has a lone surrogate (U+FFFD stands for it), nothing is nested deeper than :data:`MOST_NESTED`, and of keys
    that an object has twice the last counts.

    :param keep_numbers: Whether a number that Python would write in another way is a :class:`NumberText`. Otherwise a
        number that fits neither into 64 bits nor into a float is its text.
    :raises UnreadableRowsError: if that can't be done.
    """
    constants: list[str] = []

    def note_constant(name: str) -> str:
        constants.append(name)
        return name

    decoder = json.JSONDecoder(
        parse_int=keep_integer if keep_numbers else _integer_or_text,
        parse_float=keep_fraction if keep_numbers else _fraction_or_text,
        parse_constant=note_constant,
    )
    trouble = f"is nested more than {MOST_NESTED} deep"
    try:
        values = decoder.decode(_text_of(body))
        if not is_nested_deeper(values, MOST_NESTED):
            return DecodedRows(values, bool(constants))
    except RecursionError:
        pass
    except MemoryError:
        trouble = "takes more memory than there is"
    except ValueError:
        trouble = "is not JSON"
    raise UnreadableRowsError(trouble)


def _text_of(body: bytes) -> str:
    encoding = json.detect_encoding(body)
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError:
        text = _SURROGATE.sub("\ufffd", body.decode(encoding, "surrogatepass"))
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda escape: escape[1] or "\ufffd", text)
    return text


def _integer_or_text(text: str) -> int | str:
    value = read_int64(text)
    return text if value is None else value


def _fraction_or_text(text: str) -> float | str:
    value = read_fraction(text)
    return text if value is None else value
