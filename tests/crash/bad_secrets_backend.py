"""A secrets backend that knows nothing, and fails or takes its time to say so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from airflow.secrets import BaseSecretsBackend


class BadSecretsBackend(BaseSecretsBackend):
    """Does what a file says when it is asked for a Variable: ``raise``, or a number of seconds to take."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour = Path(behaviour)

    def get_variable(self, *_: Any, **__: Any) -> None:
        behaviour = self._behaviour.read_text() if self._behaviour.exists() else "0"
        if behaviour == "raise":
            raise ConnectionError("the secrets backend is not there")
        time.sleep(float(behaviour))

    def get_conn_value(self, *_: Any, **__: Any) -> None:
        """Know no connection either."""
