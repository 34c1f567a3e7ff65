"""What may be given for a parameter, and what each kind of parameter makes of it."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

try:
    import numpy
except ImportError:
    numpy = None

SECRET = "s3cr3t0key"
URL = "https://example.com/a"
BOOKS = "/data/books.csv"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Word(enum.StrEnum):
    BOOKS = "books"
    RESULT = "result"


def function(*_: Any) -> None:
    """Do nothing."""


VALUES: dict[str, Any] = {
    "None": None,
    "no text": "",
    "blank": " \t\n",
    "None as text": "None",
    "word": "books",
    "word in whitespace": " books\n",
    "a word of ours": "result",
    "no": "no",
    "True as text": "True",
    "digits": "7",
    "digits in whitespace": " 7 ",
    "Arabic digits": "\u0667",
    "many digits": "9" * 100,
    "long": "x" * 5000,
    "path": BOOKS,
    "URL": URL,
    "control": "a\x1b[31mb",
    "NUL": "a\0b",
    "lines": "a\nb",
    "half an emoji": "a\ud83d",
    "connection": f"agenty://:{SECRET}@api.agenty.com/v2?x={SECRET}",
    "connection as JSON": f'{{"conn_type": "agenty", "password": "{SECRET}"}}',
    "signed link": f"https://storage.example.com/output.csv?signature={SECRET}",
    "0": 0,
    "1": 1,
    "7": 7,
    "-1": -1,
    "2**53": 2**53,
    "10**5000": 10**5000,
    "True": True,
    "False": False,
    "0.5": 0.5,
    "7.0": 7.0,
    "nan": float("nan"),
    "inf": float("inf"),
    "1e300": 1e300,
    "Decimal": Decimal("0.5"),
    "timedelta": timedelta(seconds=7),
    "no timedelta": timedelta(0),
    "longest timedelta": timedelta.max,
    "negative timedelta": timedelta(seconds=-7),
    "Path": Path(BOOKS),
    "StrEnum": Word.BOOKS,
    "StrEnum of ours": Word.RESULT,
    "list": [7],
    "empty list": [],
    "list of URLs": [URL],
    "tuple of URLs": (URL,),
    "list of None": [None],
    "dict": {"a": SECRET},
    "empty dict": {},
    "shares": {"name": 1, " price": Decimal("0.5")},
    "share above 1": {"name": 1.01},
    "negative share": {"name": -0.01},
    "nan share": {"name": float("nan")},
    "boolean share": {"name": True},
    "no share": {"name": None},
    "share of a blank name": {" ": 1},
    "set of names": {"books"},
    "a name twice": ["name", "price", "name"],
    "a blank name": ["name", " "],
    "bytes": b"7",
    "object": object(),
    "function": function,
    "datetime": MOMENT,
    "naive datetime": MOMENT.replace(tzinfo=None),
}

if numpy is not None:
    VALUES |= {
        "int64": numpy.int64(7),
        "uint8": numpy.uint8(1),
        "float32": numpy.float32(0.5),
        "float64 nan": numpy.float64("nan"),
        "numpy True": numpy.bool_(True),
        "numpy text": numpy.str_("books"),
        "scalar array": numpy.array(7),
        "array": numpy.array([7]),
        "array of URLs": numpy.array([URL]),
        "timedelta64": numpy.timedelta64(7, "s"),
        "NaT": numpy.timedelta64("NaT"),
    }

# What each kind takes, and as what. Everything else is refused.

WHOLE = {"1": 1, "7": 7, "int64": 7, "uint8": 1, "scalar array": 7}
WHOLE_AS_TEXT = {"digits": 7, "digits in whitespace": 7}
NUMBERS_TO_TEXT = {"0": "0", "1": "1", "7": "7", "2**53": str(2**53), "int64": "7", "uint8": "1", "scalar array": "7"}
WORDS = {
    **dict.fromkeys(["word", "word in whitespace", "StrEnum", "numpy text"], "books"),
    **dict.fromkeys(["a word of ours", "StrEnum of ours"], "result"),
    "no": "no",
    "True as text": "True",
    "digits": "7",
    "digits in whitespace": "7",
}
SECONDS = {
    "1": 1.0,
    "7": 7.0,
    "7.0": 7.0,
    "0.5": 0.5,
    "Decimal": 0.5,
    "timedelta": 7.0,
    "int64": 7.0,
    "uint8": 1.0,
    "float32": 0.5,
    "scalar array": 7.0,
    "timedelta64": 7.0,
}
ZERO_SECONDS = {"0": 0.0, "no timedelta": 0.0}
SYMBOLS = {label: VALUES[label] for label in ("Arabic digits", "many digits")}
PATHS = {
    **WORDS,
    **SYMBOLS,
    **{label: VALUES[label] for label in ("path", "URL", "connection", "connection as JSON", "signed link")},
    "Path": BOOKS,
}
OPTIONAL = {"None": None}

KINDS: dict[str, dict[str, Any]] = {
    "job id": WHOLE | WHOLE_AS_TEXT,
    "agent id": WORDS | NUMBERS_TO_TEXT,
    "connection": WORDS | NUMBERS_TO_TEXT | SYMBOLS | {"-1": "-1", "path": BOOKS},
    "collection": WHOLE | WHOLE_AS_TEXT,
    "text": {label: each for label, each in PATHS.items() if label != "Path"}
    | NUMBERS_TO_TEXT
    | {"-1": "-1", "long": VALUES["long"]},
    "offset": WHOLE | WHOLE_AS_TEXT | {"0": 0},
    "number": WHOLE | {"0": 0},
    "number from 1": WHOLE,
    "seconds": SECONDS,
    "seconds from 0": SECONDS | ZERO_SECONDS,
    "seconds or endless": SECONDS | {"inf": float("inf")},
    "share": OPTIONAL | {"0": 0.0, "1": 1.0, "0.5": 0.5, "Decimal": 0.5, "uint8": 1.0, "float32": 0.5},
    "moment": OPTIONAL
    | {"0": 0.0, "1": 1.0, "7": 7.0, "7.0": 7.0, "0.5": 0.5, "Decimal": 0.5, "int64": 7.0, "uint8": 1.0}
    | {"float32": 0.5, "scalar array": 7.0},
    "credits": OPTIONAL
    | {"0": 0.0, "1": 1.0, "7": 7.0, "7.0": 7.0, "0.5": 0.5, "Decimal": 0.5, "int64": 7.0, "uint8": 1.0}
    | {"float32": 0.5, "scalar array": 7.0},
    "datetime": {"datetime": MOMENT},
    "boolean": {"True": True, "False": False, "numpy True": True},
    "file type": dict.fromkeys(["a word of ours", "StrEnum of ours"], "result"),
    "other choice": {},
    "filename": OPTIONAL
    | WORDS
    | NUMBERS_TO_TEXT
    | SYMBOLS
    | {"-1": "-1"}
    | {"connection as JSON": VALUES["connection as JSON"]},
    "path": PATHS,
    "folder": OPTIONAL
    | {label: each for label, each in PATHS.items() if label not in ("URL", "signed link", "connection")},
    "urls": {
        "URL": [URL],
        "list of URLs": [URL],
        "tuple of URLs": [URL],
        "array of URLs": [URL],
        "signed link": [VALUES["signed link"]],
    },
    "function": OPTIONAL | {"function": function},
    "column names": OPTIONAL
    | {label: {URL: 1.0} for label in ("list of URLs", "tuple of URLs", "array of URLs")}
    | {"shares": {"name": 1.0, " price": 0.5}, "set of names": {"books": 1.0}},
}
