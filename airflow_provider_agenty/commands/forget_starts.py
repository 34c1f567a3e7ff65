"""``forget-starts``: remove the Variables of starts whose tasks were killed in their last try."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any, NamedTuple, TextIO

from airflow_provider_agenty.waiting.task_state import INTENT_KEY, VARIABLE_PREFIX

TOKEN = "AIRFLOW_API_TOKEN"  # noqa: S105 - the name of an environment variable
PAGE = 100


def forget_starts(options: argparse.Namespace, data: TextIO) -> int:
    """Remove the old ones and say how many."""
    airflow = _RestApi(options.api_url) if options.api_url else _Database()
    began_before = time.time() - options.older_than
    old = [each for each in airflow.read() if _started_at(each.value) < began_before]
    for each in old:
        data.write(f"{each.description or each.key}\n")
        if not options.dry_run:
            airflow.delete(each.key)
    data.write(f"{len(old)} {'would be ' if options.dry_run else ''}removed\n")
    return 0


def _started_at(value: str | None) -> float:
    """Return when a start was sent; never, if it can't be told: somebody should look at that one."""
    try:
        return float(json.loads(value or "")[INTENT_KEY]["at"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


class _Variable(NamedTuple):
    key: str
    value: str | None
    description: str | None


class _Database:
    """The database of the Airflow that is installed here."""

    def read(self) -> list[_Variable]:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session

        with create_session() as session:
            rows = session.query(Variable).filter(Variable.key.startswith(VARIABLE_PREFIX, autoescape=True))
            return [_Variable(row.key, row.get_val(), row.description) for row in rows]

    def delete(self, key: str) -> None:
        from airflow.models.variable import Variable

        Variable.delete(key)


class _RestApi:
    """The REST API of an Airflow 3 that is somewhere else."""

    def __init__(self, url: str) -> None:
        import requests

        self._address = f"{url.rstrip('/')}/api/v2/variables"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {os.environ.get(TOKEN, '')}"

    def read(self) -> list[_Variable]:
        found: list[dict[str, Any]] = []
        while page := self._call("GET", self._address, limit=PAGE, offset=len(found)).json()["variables"]:
            found += page
        every = [_Variable(each["key"], each["value"], each.get("description")) for each in found]
        return [each for each in every if each.key.startswith(VARIABLE_PREFIX)]

    def delete(self, key: str) -> None:
        self._call("DELETE", f"{self._address}/{key}")

    def _call(self, method: str, address: str, **parameters: Any) -> Any:
        answer = self._session.request(method, address, timeout=30, params=parameters)
        answer.raise_for_status()
        return answer
