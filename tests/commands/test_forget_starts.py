"""``forget-starts --api-url``, over a socket to a server that pages and deletes Variables as Airflow 3 does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_agenty.commands import main
from tests.loopback import HttpServer, running

TOKEN = "t0ken"
DAY = 24 * 3600.0
MOST_ON_A_PAGE = 70
"""Less than is asked for, as `[api] maximum_page_limit` may say."""


def started(days_ago: float) -> str:
    return json.dumps({"agenty_start": {"newest_job_id": 1, "at": time.time() - days_ago * DAY}})


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body=None):
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def is_refused(self):
        refused = self.headers["Authorization"] != f"Bearer {TOKEN}"
        if refused:
            self.answer(401, {"detail": "Invalid JWT token"})
        return refused

    def do_GET(self):
        address = urlsplit(self.path)
        if self.is_refused():
            return
        assert address.path == "/airflow/api/v2/variables"
        asked = {name: int(value) for name, (value,) in parse_qs(address.query).items()}
        self.server.pages += 1
        every = [
            {"key": key, "value": value, "description": f"DAG {key}"} for key, value in self.server.variables.items()
        ]
        page = every[asked["offset"] :][: min(asked["limit"], MOST_ON_A_PAGE)]
        self.answer(200, {"variables": page, "total_entries": len(every)})

    def do_DELETE(self):
        if self.is_refused():
            return
        key = self.path.removeprefix("/airflow/api/v2/variables/")
        self.answer(404 if self.server.variables.pop(key, None) is None else 204)


@pytest.fixture
def airflow(monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_TOKEN", TOKEN)
    with running(HttpServer(Handler)) as server:
        server.variables = {}
        server.pages = 0
        server.url += "/airflow"
        yield server


@pytest.fixture
def forget_starts(airflow, capsys):
    def run(*arguments):
        status = main(["forget-starts", "--api-url", airflow.url, *arguments])
        return status, *capsys.readouterr()

    return run


def test_old_starts_of_all_pages_go_and_nothing_else(airflow, forget_starts):
    for number in range(90):
        airflow.variables[f"agenty_start_{number:032}"] = started(days_ago=40)
        airflow.variables[f"of_somebody_else_{number}"] = started(days_ago=40)
        airflow.variables[f"agenty_start_{number + 100:032}"] = started(days_ago=20)

    status, out, _ = forget_starts()

    assert (status, out.splitlines()[-1]) == (0, "90 removed")
    assert len(airflow.variables) == 180
    assert not any(f"agenty_start_{number:032}" in airflow.variables for number in range(90))
    assert airflow.pages == 5


def test_the_age_counts(airflow, forget_starts):
    airflow.variables |= {"agenty_start_a": started(days_ago=0.4), "agenty_start_b": started(days_ago=0.6)}

    assert forget_starts("--older-than", "12h")[:2] == (0, "DAG agenty_start_b\n1 removed\n")
    assert list(airflow.variables) == ["agenty_start_a"]


def test_a_dry_run_removes_nothing(airflow, forget_starts):
    airflow.variables["agenty_start_a"] = started(days_ago=40)

    assert forget_starts("--dry-run")[:2] == (0, "DAG agenty_start_a\n1 would be removed\n")
    assert "agenty_start_a" in airflow.variables


@pytest.mark.parametrize("value", [None, "", "***", "[]", '{"agenty_job": {"job_id": 7}}', '{"agenty_start": {}}'])
def test_what_cannot_be_dated_stays(airflow, forget_starts, value):
    airflow.variables["agenty_start_a"] = value

    assert forget_starts("--older-than", "0m")[:2] == (0, "0 removed\n")
    assert "agenty_start_a" in airflow.variables


@pytest.mark.parametrize("token", [None, "another"])
def test_a_wrong_token_is_told(airflow, forget_starts, monkeypatch, token):
    airflow.variables["agenty_start_a"] = started(days_ago=40)
    monkeypatch.delenv("AIRFLOW_API_TOKEN")
    if token is not None:
        monkeypatch.setenv("AIRFLOW_API_TOKEN", token)

    status, out, err = forget_starts()

    assert (status, out) == (1, "")
    assert err.startswith("forget-starts: 401")
    assert len(err.splitlines()) == 1
    assert "agenty_start_a" in airflow.variables


def test_as_it_is_called_from_a_shell(airflow):
    airflow.variables["agenty_start_a"] = started(days_ago=40)

    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_agenty", "forget-starts", "--api-url", f"{airflow.url}/"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["DAG agenty_start_a", "1 removed"]
    assert airflow.variables == {}
