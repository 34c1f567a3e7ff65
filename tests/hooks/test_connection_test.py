"""What the button "Test" of a connection says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"


@pytest.fixture
def tls_sandbox(certificate: Any) -> Any:
    with Sandbox(certfile=certificate.certfile, keyfile=certificate.keyfile) as sandbox:
        yield sandbox


def assert_one_read(sandbox: Sandbox) -> None:
    [request] = sandbox.requests
    assert (request.method, request.path) == ("GET", "/jobs")
    assert request.query == {"limit": "1", "offset": "0"}
    assert sandbox.starts == 0


def test_a_good_connection_is_told_with_its_address_and_what_was_seen(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.add_older_jobs(BOOKS, 3)

    worked, said = hook.test_connection()

    assert worked
    assert sandbox.url in said
    assert "3 jobs" in said
    assert_one_read(sandbox)


def test_one_job_is_not_called_jobs(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.add_older_jobs(BOOKS, 1)

    assert hook.test_connection()[1].endswith("the account has 1 job.")


@pytest.mark.parametrize("auth", ["header", "query"])
def test_the_key_goes_the_way_it_does_in_real_calls(sandbox: Sandbox, connect: Any, auth: str) -> None:
    assert connect({"auth": auth}).test_connection()[0]
    assert [(request.key_in, request.key_valid) for request in sandbox.requests] == [(auth, True)]


def failures(
    sandbox: Sandbox, tls_sandbox: Sandbox, connect: Callable[..., AgentyHook], closed_port: int
) -> dict[str, tuple[Callable[[], AgentyHook], list[str]]]:
    """Return each way to fail: how, and what must be said."""

    def forbidden() -> AgentyHook:
        sandbox.fault("GET", "/**", status=403)
        return connect()

    return {
        "wrong key": (lambda: connect(password="not-the-key"), ["401", "does not know the API key", "password"]),
        "no permission": (forbidden, ["403", "may not do this", "role"]),
        "name": (lambda: connect(host="https://agenty.invalid"), ["agenty.invalid", "could not be resolved", "DNS"]),
        "tls": (
            lambda: connect(host=tls_sandbox.url, password=tls_sandbox.key),
            ["TLS certificate", "could not be verified", "self-signed", "verify"],
        ),
        "tls on a plain port": (
            lambda: connect(host=sandbox.url.replace("http:", "https:")),
            ["TLS connection to 127.0.0.1 failed"],
        ),
        "proxy": (
            lambda: connect({"proxies": f"http://127.0.0.1:{closed_port}"}, host="https://agenty.example"),
            ["proxy", "proxies", "HTTPS_PROXY"],
        ),
        "timeout": (lambda: connect({"timeout": {"read": 0.2}}), ["no answer from 127.0.0.1 within 0.2 s", "timeout"]),
        "refused": (lambda: connect(host=f"http://127.0.0.1:{closed_port}"), ["refused the connection", "port"]),
        "bad host": (lambda: connect(host="not a host"), ["host is not a URL"]),
        "no key": (lambda: connect(password=""), ["no API key"]),
        "unknown": (lambda: AgentyHook("agenty_elsewhere"), ["no connection 'agenty_elsewhere'"]),
        "not agenty": (lambda: connect(host=f"{sandbox.url}/nothing"), ["404"]),
    }


def test_each_failure_is_told_apart_by_a_sentence_of_its_own(
    sandbox: Sandbox, tls_sandbox: Sandbox, connect: Callable[..., AgentyHook], closed_port: int
) -> None:
    sentences: dict[str, str] = {}
    for name, (make, parts) in failures(sandbox, tls_sandbox, connect, closed_port).items():
        held = sandbox.fault("GET", "/jobs", hold="before") if name == "timeout" else None
        worked, said = make().test_connection()
        assert not worked, name
        assert all(part in said for part in parts), (name, said)
        assert sandbox.key not in said
        assert tls_sandbox.key not in said
        sentences[said] = name
        if held:
            held.remove()
    assert len(sentences) == 12


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429, "headers": {"Retry-After": "60"}}, {"drop": "after"}, {"body": "<html>"}]
)
def test_a_failure_is_told_at_once_after_one_request(
    sandbox: Sandbox, hook: AgentyHook, slept: list[float], fault: dict[str, Any]
) -> None:
    sandbox.fault("GET", "/jobs", times=None, **fault)

    worked, said = hook.test_connection()

    assert not worked
    assert "GET /jobs" in said
    assert_one_read(sandbox)
    assert slept == []


def test_a_test_leaves_the_hook_as_it_was(sandbox: Sandbox, hook: AgentyHook) -> None:
    hook.test_connection()
    sandbox.clear()
    sandbox.fault("GET", "/jobs", status=503)

    assert list(hook.list_jobs()) == []
    assert len(sandbox.requests) == 2


def test_a_test_takes_no_longer_than_the_timeout(sandbox: Sandbox, connect: Any) -> None:
    held = sandbox.fault("GET", "/jobs", hold="before", times=None)
    began = time.monotonic()

    worked, _ = connect({"timeout": 0.2}).test_connection()

    assert not worked
    assert time.monotonic() - began < 20
    held.release()
