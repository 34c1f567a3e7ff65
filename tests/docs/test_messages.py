"""
The messages that the documentation explains are those that the package says.

The first cells of the tables are compared with the texts in the code, ``…`` standing for what is filled in.
"""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT, rows

PACKAGE = ROOT / "airflow_provider_agenty"
PLACEHOLDER = re.compile(r"%[-+0-9.]*[sdrf]")
NOT_OURS = re.compile(
    r"HTTP |GET |POST |the answer \(HTTP|Job … was aborted|Skipped because of soft_fail|Snap\. |Sensor has |"
    r"Agenty agent"
)
"""What begins like this is put together of several texts when it is said, or said by Airflow."""


def texts() -> str:
    """Return every text in the package, a line each, ``…`` for what is filled in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(PLACEHOLDER.sub("…", node.value))
    return "\n".join(text.replace("\n", " ") for text in found)


TEXTS = texts()
MESSAGES = [
    message
    for page in ("troubleshooting.md", "connection.md")
    for cells in rows((ROOT / "docs" / page).read_text(encoding="utf-8"))
    for message in re.findall(r"`([^`]+)`", cells[0])
    if " " in message and not NOT_OURS.match(message)
]


def test_there_are_messages():
    assert len(MESSAGES) > 80


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_said_by_the_package(message):
    parts = [re.escape(part) for part in message.replace("'…'", "…").split("…")]
    assert re.search(".*".join(parts), TEXTS), f"nothing says {message!r}"
