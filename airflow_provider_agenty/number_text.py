"""Numbers of JSON, where Python's own would not keep their text: ``19.90``, ``1e400``, one of 20 digits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_INT64 = range(-(2**63), 2**63)
_LONGEST_INT64 = len(str(-(2**63)))
_DIGITS_OF_A_FLOAT = 17
"""Significant digits that tell any float from all others."""

_EXPONENT = re.compile("[eE]")


@dataclass(frozen=True, slots=True)
class NumberText:
    """
    A number that is kept as the text it came as.

    :param text: The number as JSON has it.
    """

    text: str

    @property
    def value(self) -> int | float | None:
        """The number, if 64 bits hold it: a whole one, or a fraction of as many digits as a float has."""
        integer = read_int64(self.text)
        if integer is not None or _is_whole(self.text):
            return integer
        fraction = read_fraction(self.text)
        return fraction if len(_significant_digits(self.text)) <= _DIGITS_OF_A_FLOAT else None


def keep_integer(text: str) -> int | NumberText:
    """
    Return a whole number so that its text can be written again.

    :param text: The number as JSON has it.
    """
    value = read_int64(text)
    return NumberText(text) if value is None or text == "-0" else value


def keep_fraction(text: str) -> float | NumberText:
    """
    Return a number with a fraction or an exponent so that its text can be written again.

    :param text: The number as JSON has it.
    """
    value = float(text)
    return value if repr(value) == text else NumberText(text)


def read_int64(text: str) -> int | None:
    """
    Return a whole number; ``None`` if 64 bits do not hold it, or if it is none.

    :param text: A number as JSON has it.
    """
    # A longer text is not tried: Python refuses some, and takes quadratic time for others.
    if len(text) > _LONGEST_INT64 or not _is_whole(text):
        return None
    value = int(text)
    return value if value in _INT64 else None


def read_fraction(text: str) -> float | None:
    """
    Return a number as the float next to it; ``None`` if it is too large or too small for one.

    :param text: A number as JSON has it.
    """
    value = float(text)
    if not math.isfinite(value) or (value == 0 and _significant_digits(text)):
        return None
    return value


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def _significant_digits(text: str) -> str:
    return _EXPONENT.split(text)[0].replace("-", "").replace(".", "").strip("0")
