"""What was landed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ExportedFile:
    """
    A verified file at its destination.

    :param path: where it is: an absolute local path, or the URL it was landed at.
    :param size: its size there, in bytes (compressed, when it was compressed on the way).
    :param rows: how many rows it has, the header not counted; ``None`` for what has no rows, as logs.
    :param sha256: SHA-256 of its content before compression, in hexadecimal digits.
    :param job_id: the job it came from.
    :param collection: which of the agent's collections, counted from 1; ``None`` where that means nothing.
    """

    path: str
    size: int
    rows: int | None
    sha256: str
    job_id: int
    collection: int | None

    def to_dict(self) -> dict[str, Any]:
        """
        Give it as JSON primitives, for XCom and asset events.

        :return: a dictionary with the fields' names as keys.
        """
        return asdict(self)
