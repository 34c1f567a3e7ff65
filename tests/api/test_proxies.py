"""Proxies: what is asked of them, and that this machine is never reached through one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_agenty.api.session import Session
from airflow_provider_agenty.exceptions import AgentyError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

ELSEWHERE = "https://agenty.example"
VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
WAYS = ["environment", "connection", "connection for all", "connection for this host"]


@pytest.fixture
def proxy(listener: Any) -> Any:
    """Give a proxy that notes what it is asked for, and refuses it."""
    listener.status = 502
    return listener


def asked_of(proxy: Any) -> list[tuple[str, str]]:
    return [(method, target) for method, target, _ in proxy.requests]


@pytest.fixture(params=WAYS)
def behind_proxy(request: Any, proxy: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give what makes a hook that a proxy is set for, in one of the ways there are."""
    extra: dict[str, Any] = {
        "environment": {},
        "connection": {"proxies": proxy.url},
        "connection for all": {"proxies": {"all": proxy.url}},
        "connection for this host": {"proxies": {"http://127.0.0.1": proxy.url, "all://localhost": proxy.url}},
    }[request.param]
    if request.param == "environment":
        for name in VARIABLES:
            monkeypatch.setenv(name, proxy.url)

    def make(**fields: Any) -> AgentyHook:
        hook: AgentyHook = connect({"max_attempts": 1, **extra}, **fields)
        return hook

    return make


# This machine


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_no_call_to_this_machine_goes_through_a_proxy(
    sandbox: Sandbox, proxy: Any, behind_proxy: Any, name: str
) -> None:
    assert behind_proxy(host=sandbox.url.replace("127.0.0.1", name)).test_connection()[0]

    assert [request.key_valid for request in sandbox.requests] == [True]
    assert proxy.requests == []


@pytest.mark.parametrize("name", ["127.8.9.10", "[::1]", "agenty.localhost"])
def test_no_call_to_another_name_of_this_machine_goes_through_a_proxy(proxy: Any, behind_proxy: Any, name: str) -> None:
    # Nobody listens there, and not every machine knows names below localhost.
    assert not behind_proxy(host=f"http://{name}:9/v2").test_connection()[0]

    assert proxy.requests == []


def test_no_download_from_this_machine_goes_through_a_proxy(
    sandbox: Sandbox, proxy: Any, behind_proxy: Any, finished_job: int, tmp_path: Path
) -> None:
    landed = behind_proxy().download_export(finished_job, str(tmp_path / "books.csv"))

    assert landed.rows == 60
    assert {request.host for request in sandbox.requests} == {"api", "downloads"}
    assert proxy.requests == []


def test_no_redirect_within_this_machine_goes_through_a_proxy(
    sandbox: Sandbox, proxy: Any, behind_proxy: Any, finished_job: int
) -> None:
    sandbox.fault("GET", "/**", redirect=f"{sandbox.url}/jobs/{finished_job}")
    with Session(behind_proxy().settings, authenticated=False) as session:
        session.get(f"{sandbox.url}/jobs")

    assert len(sandbox.requests) == 2
    assert proxy.requests == []


def test_the_session_for_other_calls_goes_past_the_proxy_too(sandbox: Sandbox, proxy: Any, behind_proxy: Any) -> None:
    assert behind_proxy().get_conn().get("/agents").ok
    assert proxy.requests == []


# Other hosts


def test_the_proxy_of_the_environment_is_used(connect: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy.url)
    with pytest.raises(AgentyError, match="proxy"):
        next(connect({"max_attempts": 1}, host=ELSEWHERE).list_jobs())

    assert asked_of(proxy) == [("CONNECT", "agenty.example:443")]


def test_no_proxy_of_the_environment_is_obeyed(connect: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "agenty.invalid")
    with pytest.raises(AgentyError, match="could not be resolved"):
        next(connect({"max_attempts": 1}, host="https://agenty.invalid").list_jobs())

    assert proxy.requests == []


@pytest.mark.parametrize("form", ["text", "scheme", "all"])
@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_the_proxy_of_the_connection_wins_over_the_environment(
    connect: Any, proxy: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch, form: str, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port}")
    proxies = {"text": proxy.url, "scheme": {"https": proxy.url}, "all": {"all": proxy.url}}[form]
    with pytest.raises(AgentyError, match="proxy"):
        next(connect({"proxies": proxies, "max_attempts": 1}, host=ELSEWHERE).list_jobs())

    assert asked_of(proxy) == [("CONNECT", "agenty.example:443")]


def test_the_proxy_of_the_connection_is_used_for_downloads_too(connect: Any, proxy: Any) -> None:
    with Session(connect({"proxies": proxy.url}).settings, authenticated=False) as session:
        request = session.prepare_request(requests.Request("GET", f"{ELSEWHERE}/file"))
        chosen = session.merge_environment_settings(request.url, {}, True, None, None)
        with pytest.raises(requests.exceptions.ProxyError):
            session.send(request, timeout=10, **chosen)

    assert asked_of(proxy) == [("CONNECT", "agenty.example:443")]
