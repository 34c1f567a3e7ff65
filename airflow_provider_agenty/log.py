"""The type of a logger: Airflow's are structlog's on some versions, and logging's on others."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """A logger that takes a message with ``%`` and its arguments."""

    def debug(self, message: str, /, *arguments: Any) -> Any:
        """Tell what only a search for an error needs."""

    def info(self, message: str, /, *arguments: Any) -> Any:
        """Tell what happens."""

    def warning(self, message: str, /, *arguments: Any) -> Any:
        """Tell what a person should look at."""

    def log(self, level: int, message: str, /, *arguments: Any) -> Any:
        """Tell something at a level of :mod:`logging`."""
