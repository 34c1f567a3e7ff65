"""What nothing that Airflow writes may hold, in each form in which it could be written."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

SIGNATURE = rb"signature=[\w.-]{20,}"
"""The signature of a link, as the sandbox makes it, whatever stands before it."""


def forms_of(secret: str) -> set[str]:
    """Return a secret as it stands in text, in a URL, in JSON and in Python's ``repr``."""
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    }


def pattern_of(secret: str) -> bytes:
    """Return what finds a secret in any of its forms."""
    return b"|".join(re.escape(form.encode()) for form in forms_of(secret))
