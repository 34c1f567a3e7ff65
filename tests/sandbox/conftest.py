from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"


class Client:
    """A plain HTTP client of the API; what it gets back is requests' own response."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["X-Agenty-ApiKey"] = sandbox.key

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.sandbox.url + path, timeout=10, **options)

    def start(self, agent_id: str = BOOKS, **options: Any) -> requests.Response:
        return self.session.post(f"{self.sandbox.url}/jobs/start", json={"agent_id": agent_id}, timeout=10, **options)

    def put(self, path: str, body: Any) -> requests.Response:
        return self.session.put(self.sandbox.url + path, json=body, timeout=10)

    def link(self, job_id: int, **query: Any) -> str:
        link: str = self.get(f"/jobs/{job_id}/export", params=query).json()["downloadlink"]
        return link


def fetch(link: str, **headers: str) -> requests.Response:
    """Download a link, its bytes as they are."""
    return requests.get(link, headers={"Accept-Encoding": "identity", **headers}, timeout=10)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_641_814_338.2362494

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sandbox(clock):
    """A sandbox whose jobs take 100 s of a clock that the test moves."""
    with Sandbox(seconds=100, clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox):
    return Client(sandbox)


@pytest.fixture
def new_client():
    return Client


@pytest.fixture
def finished(client, sandbox):
    """The id of a completed job of the books agent."""
    job_id = client.start().json()["job_id"]
    sandbox.set_status(job_id, "completed")
    return job_id
