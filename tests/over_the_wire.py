"""Fixtures of the tests that speak HTTP with a sandbox: those of the API and those of the hook."""

from __future__ import annotations

import json
import logging
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_agenty.api import start_job
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.certificate import Certificate, write_certificate

BOOKS = "45l0wewqzk"

Connect = Callable[..., AgentyHook]


def requested(sandbox: Sandbox, path: str) -> list[dict[str, str]]:
    """Return the queries of the requests whose path ends so."""
    return [request.query for request in sandbox.requests if request.path.endswith(path)]


def page(total: int, *result: Any) -> dict[str, Any]:
    """Return a page of a list as Agenty answers it."""
    return {"total": total, "limit": 1000, "offset": 0, "returned": len(result), "result": list(result)}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy, CA bundle or netrc of whoever runs the tests have a say."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the waits between attempts in place of waiting."""
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", types.SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture(autouse=True)
def quick_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_job, "POLICY", start_job.StartPolicy(attempts=3, lookups=2, first_wait=0.01))


@pytest.fixture(autouse=True)
def hook_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caplog hear what hooks say, whichever way Airflow's version logs."""
    monkeypatch.setattr(AgentyHook, "log", logging.getLogger("airflow_provider_agenty.hooks"))


@pytest.fixture
def sandbox(agenty_sandbox: Sandbox) -> Sandbox:
    return agenty_sandbox


@pytest.fixture
def connect(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Give a function that makes a hook whose connection leads to the sandbox, but for what it is given."""
    hooks: list[AgentyHook] = []

    def make(extra: dict[str, Any] | None = None, **fields: Any) -> AgentyHook:
        connection = {**sandbox.connection, **fields}
        connection["extra"] = {**connection.get("extra", {}), **(extra or {})}
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))
        hooks.append(AgentyHook())
        return hooks[-1]

    yield make
    for hook in hooks:
        hook.close()


@pytest.fixture
def hook(connect: Connect) -> AgentyHook:
    return connect()


@pytest.fixture
def finished_job(sandbox: Sandbox) -> int:
    """Give the id of a completed job of the sample agent with books."""
    return sandbox.add_older_jobs(BOOKS, 1)[0]


@pytest.fixture
def closed_port() -> int:
    """Give a port of this machine on which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("certificate"))
