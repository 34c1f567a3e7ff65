from __future__ import annotations

import json
import logging
import re
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from airflow_provider_agenty import __version__
from airflow_provider_agenty.api.session import Session
from airflow_provider_agenty.connection import Settings, origin
from airflow_provider_agenty.exceptions import AgentyError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.features import has

AWKWARD_KEY = "k+/=%&?#0123456789"

# Where the key goes


def test_the_key_is_in_the_header_only_by_default(sandbox: Sandbox, hook: AgentyHook) -> None:
    next(hook.list_jobs(), None)

    [request] = sandbox.requests
    assert request.key_in == "header"
    assert request.key_valid
    assert "apikey" not in {name.lower() for name in request.query}


def test_the_key_is_in_the_query_only_where_the_connection_asks_for_it(sandbox: Sandbox, connect: Any) -> None:
    hook = connect({"auth": "query"})
    next(hook.list_jobs(), None)
    hook.start_job("45l0wewqzk")

    assert {request.key_in for request in sandbox.requests} == {"query"}
    assert all(request.key_valid for request in sandbox.requests)
    assert "***" not in json.dumps([[request.headers, request.body, request.path] for request in sandbox.requests])


@pytest.mark.agenty_sandbox(key=AWKWARD_KEY)
@pytest.mark.parametrize("auth", ["header", "query"])
def test_a_key_of_any_printable_characters_arrives_as_it_is(sandbox: Sandbox, connect: Any, auth: str) -> None:
    next(connect({"auth": auth}).list_jobs(), None)

    assert [request.key_valid for request in sandbox.requests] == [True]


def test_no_request_carries_the_key_in_its_body(sandbox: Sandbox, hook: AgentyHook) -> None:
    hook.start_job("45l0wewqzk")

    start = sandbox.requests[-1]
    assert json.loads(start.body) == {"agent_id": "45l0wewqzk"}
    assert start.headers["content-type"] == "application/json"


def test_each_request_names_the_package_and_its_version(sandbox: Sandbox, hook: AgentyHook) -> None:
    next(hook.list_jobs(), None)
    hook.get_conn().get("/agents")

    assert {request.headers["user-agent"] for request in sandbox.requests} == {f"airflow-provider-agenty/{__version__}"}


def test_connections_are_used_again(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    for _ in range(5):
        hook.get_job(finished_job)

    assert len({request.client_port for request in sandbox.requests}) == 1


# Redirects


@pytest.mark.parametrize(
    ("status", "auth", "scheme"),
    [
        (301, "header", "http:"),
        (302, "query", "http:"),
        (302, "header", ""),
        (303, "header", "http:"),
        (307, "header", "http:"),
        (307, "query", ""),
        (308, "header", "http:"),
    ],
)
def test_no_redirect_to_another_host_is_followed(
    sandbox: Sandbox, connect: Any, listener: Any, status: int, auth: str, scheme: str
) -> None:
    target = f"{scheme}//{urlsplit(listener.url).netloc}/v2/jobs/7"
    sandbox.fault("GET", "/jobs/7", redirect=target, status=status)

    with pytest.raises(AgentyError, match=r"redirect to 127\.0\.0\.1, which is not followed"):
        connect({"auth": auth}).get_job(7)

    assert listener.connections == 0
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_of_a_start_is_followed_at_all(
    sandbox: Sandbox, hook: AgentyHook, listener: Any, status: int
) -> None:
    sandbox.fault("POST", "/jobs/start", redirect=f"{listener.url}/v2/jobs/start", status=status)

    with pytest.raises(AgentyError, match=r"POST /jobs/start.*redirect"):
        hook.start_job("45l0wewqzk")

    assert listener.connections == 0
    assert sandbox.starts == 0


def test_no_redirect_to_another_scheme_is_followed(sandbox: Sandbox, hook: AgentyHook) -> None:
    before = sandbox.connections["api"]
    sandbox.fault("GET", "/jobs/7", redirect=f"{sandbox.url.replace('http:', 'https:')}/jobs/8")

    with pytest.raises(AgentyError, match="redirect"):
        hook.get_job(7)

    assert sandbox.connections["api"] == before + 1


@pytest.mark.parametrize(
    "target",
    [
        "http://{other}\\@{api}/v2/jobs",
        "http://{api}\\@{other}/v2/jobs",
        "http://{api}@{other}/v2/jobs",
        "/\\{other}/v2/jobs",
        "\\\\{other}/v2/jobs",
        "http:\\\\{other}/v2/jobs",
        "http:/{other}/v2/jobs",
        "http:{other}/v2/jobs",
        " http://{other}/v2/jobs",
        "///{other}/v2/jobs",
        "////{other}/v2/jobs",
        "/////{other}/v2/jobs",
        "//{other}/v2/jobs",
    ],
)
@pytest.mark.parametrize("auth", ["header", "query"])
def test_no_disguise_of_another_host_gets_the_key_there(
    sandbox: Sandbox, connect: Any, listener: Any, target: str, auth: str
) -> None:
    other, api = urlsplit(listener.url).netloc, urlsplit(sandbox.url).netloc
    sandbox.fault("GET", "/jobs/7", redirect=target.format(other=other, api=api))

    with pytest.raises(AgentyError):
        connect({"auth": auth, "max_attempts": 1}).get_job(7)

    assert listener.connections == 0


@pytest.mark.parametrize("target", ["https://[bad/v2/jobs", "http://127.0.0.1:port/v2/jobs", "http://[::1/?x=y"])
def test_a_redirect_to_what_is_no_url_is_an_error_of_ours(sandbox: Sandbox, hook: AgentyHook, target: str) -> None:
    sandbox.fault("GET", "/jobs/7", redirect=target, times=None)

    with pytest.raises(AgentyError, match="GET /jobs/7"):
        hook.get_job(7)


def test_a_redirect_in_circles_is_an_error_that_says_so(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("GET", "/jobs/7", redirect=f"{sandbox.url}/jobs/7", times=None)

    with pytest.raises(AgentyError, match="redirect"):
        hook.get_job(7)

    assert len(sandbox.requests) < 40


@pytest.mark.parametrize(
    ("status", "auth", "relative"),
    [(301, "header", False), (302, "query", True), (307, "header", True), (308, "query", False)],
)
def test_a_redirect_within_the_host_is_not_followed_either(
    sandbox: Sandbox, connect: Any, finished_job: int, status: int, auth: str, relative: bool
) -> None:
    target = f"{sandbox.url}/jobs/{finished_job}"
    sandbox.fault("GET", "/jobs/7", redirect=urlsplit(target).path if relative else target, status=status, times=None)
    hook: AgentyHook = connect({"auth": auth})

    with pytest.raises(AgentyError, match=r"redirect to .*, which is not followed"):
        hook.get_job(7)
    assert hook.get_conn().get("/jobs/7").status_code == status
    assert {request.path for request in sandbox.requests} == {"/jobs/7"}


# netrc


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the password that netrc has for this machine."""
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login somebody password netrc-password\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    return "netrc-password"


@pytest.mark.parametrize("auth", ["header", "query"])
def test_netrc_is_not_used_for_the_api(
    sandbox: Sandbox, connect: Any, netrc: str, finished_job: int, auth: str
) -> None:
    hook = connect({"auth": auth})
    hook.get_job(finished_job)
    hook.get_conn().get("/agents")

    assert len(sandbox.requests) == 2
    assert all("authorization" not in request.headers for request in sandbox.requests)


def test_netrc_is_not_used_by_the_session_without_a_key(sandbox: Sandbox, listener: Any, netrc: str) -> None:
    sandbox.fault("GET", "/x", redirect=f"{sandbox.url}/y")
    with Session(Settings(base_url=sandbox.url, key="unused-key"), authenticated=False) as session:
        session.get(listener.url)
        session.get(f"{sandbox.url}/x")

    assert len(sandbox.requests) == 2
    assert all("authorization" not in request.headers for request in sandbox.requests)
    assert "authorization" not in listener.everything


def test_the_session_without_a_key_sends_no_key_even_to_the_api(sandbox: Sandbox) -> None:
    with Session(Settings(base_url=sandbox.url, key=sandbox.key), authenticated=False) as session:
        session.get(f"{sandbox.url}/jobs")

    assert [request.key_in for request in sandbox.requests] == [None]


# Certificates


def test_verify_of_the_connection_applies_to_downloads_too(connect: Any) -> None:
    with Session(connect({"verify": False}).settings, authenticated=False) as session:
        assert session.merge_environment_settings("https://127.0.0.1/", {}, True, None, None)["verify"] is False


@pytest.fixture
def tls_sandbox(certificate: Any) -> Any:
    with Sandbox(certfile=certificate.certfile, keyfile=certificate.keyfile) as sandbox:
        yield sandbox


def test_verify_of_the_connection_is_a_ca_bundle_that_wins_over_the_environment(
    tls_sandbox: Sandbox, connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import certifi

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    next(connect(**tls_sandbox.connection).list_jobs(), None)

    assert len(tls_sandbox.requests) == 1


def test_verify_false_of_the_connection_wins_over_the_environment(
    tls_sandbox: Sandbox, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with pytest.warns(Warning, match="Unverified HTTPS request"):
        next(connect({"verify": "false"}, host=tls_sandbox.url, password=tls_sandbox.key).list_jobs(), None)

    assert len(tls_sandbox.requests) == 1


def test_the_ca_bundle_of_the_environment_is_used(
    tls_sandbox: Sandbox, connect: Any, certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate.certfile)
    next(connect(host=tls_sandbox.url, password=tls_sandbox.key).list_jobs(), None)

    assert len(tls_sandbox.requests) == 1


def test_a_certificate_that_nobody_trusts_is_refused_before_the_key_is_sent(tls_sandbox: Sandbox, connect: Any) -> None:
    with pytest.raises(AgentyError, match=r"TLS certificate of 127.0.0.1"):
        next(connect(host=tls_sandbox.url, password=tls_sandbox.key).list_jobs())

    assert tls_sandbox.requests == []


def test_a_ca_bundle_of_the_environment_that_is_missing_is_named(
    tls_sandbox: Sandbox, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    with pytest.raises(AgentyError, match=r"/nowhere/ca\.pem.*REQUESTS_CA_BUNDLE"):
        next(connect(host=tls_sandbox.url, password=tls_sandbox.key).list_jobs())


# Timeouts


def test_each_request_has_the_timeouts_of_the_connection(
    connect: Any, monkeypatch: pytest.MonkeyPatch, finished_job: int
) -> None:
    from requests.adapters import HTTPAdapter

    given: list[Any] = []
    send = HTTPAdapter.send

    def noting_send(self: HTTPAdapter, *args: Any, **kwargs: Any) -> Any:
        given.append(kwargs["timeout"])
        return send(self, *args, **kwargs)

    monkeypatch.setattr(HTTPAdapter, "send", noting_send)
    hook = connect({"timeout": {"connect": 3, "read": 7}})
    hook.get_job(finished_job)
    hook.start_job("45l0wewqzk")
    hook.stop_job(finished_job)
    hook.get_conn().get("/agents")
    hook.get_conn().get("/agents", timeout=1)

    assert set(given[:-1]) == {(3.0, 7.0)}
    assert given[-1] == 1


# The session for other calls


def test_get_conn_is_an_authenticated_session_that_takes_paths(sandbox: Sandbox, hook: AgentyHook) -> None:
    session = hook.get_conn()

    assert session.get("/agents/45l0wewqzk").json()["agent_id"] == "45l0wewqzk"
    assert session.get(f"{sandbox.url}/agents").status_code == 200
    assert session.put("/inputs/45l0wewqzk", json={"type": "url", "data": ["https://example.com"]}).ok
    assert [request.path for request in sandbox.requests] == ["/agents/45l0wewqzk", "/agents", "/inputs/45l0wewqzk"]


@pytest.mark.parametrize("auth", ["header", "query"])
def test_get_conn_sends_the_key_to_no_other_host(connect: Any, sandbox: Sandbox, listener: Any, auth: str) -> None:
    hook = connect({"auth": auth})
    hook.get_conn().get(f"{listener.url}/v2/agents")
    hook.get_conn().get("/agents")

    assert len(listener.requests) == 1
    assert sandbox.key not in listener.everything
    assert sandbox.requests[-1].key_valid


def test_a_path_with_two_slashes_stays_with_the_api(hook: AgentyHook, sandbox: Sandbox, listener: Any) -> None:
    hook.get_conn().get(f"//{urlsplit(listener.url).netloc}/agents")

    assert listener.requests == []
    assert len(sandbox.requests) == 1


def test_a_closed_hook_can_be_used_again(hook: AgentyHook, finished_job: int) -> None:
    with hook:
        hook.get_job(finished_job)

    assert hook.get_job(finished_job).job_id == finished_job


# What Airflow is told to hide


def masked(secrets: list[str], text: str) -> str:
    """Do to a text what Airflow's logs do."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what Airflow is told to hide."""
    secrets: list[str] = []
    monkeypatch.setattr("airflow_provider_agenty.hooks.connected.mask_secret", secrets.append)
    return secrets


def test_airflow_is_told_to_hide_the_key(connect: Any, hidden: list[str], sandbox: Sandbox) -> None:
    connect(password=f" {sandbox.key}\n").settings  # noqa: B018 - reading it is what is tested

    assert sandbox.key in hidden


def test_airflow_is_told_to_hide_a_key_that_is_refused(connect: Any, hidden: list[str]) -> None:
    with pytest.raises(AgentyError):
        connect(password="two words").settings  # noqa: B018 - reading it is what is tested

    assert "two words" in hidden


# What is printed before anybody masks it


@pytest.mark.agenty_sandbox(key=AWKWARD_KEY)
def test_no_record_at_debug_level_holds_the_key_masked_or_not(
    connect: Any, caplog: pytest.LogCaptureFixture, finished_job: int
) -> None:
    caplog.set_level(logging.DEBUG)
    hook = connect({"auth": "query"})
    hook.get_job(finished_job)
    hook.get_conn().get("/agents")

    assert AWKWARD_KEY not in caplog.text
    assert quote(AWKWARD_KEY, safe="") not in caplog.text


def test_no_record_at_debug_level_holds_a_signature_masked_or_not(
    hook: AgentyHook, caplog: pytest.LogCaptureFixture, finished_job: int, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.download_export(finished_job, str(tmp_path / "books.csv"))

    assert "signature=" not in caplog.text


def test_what_others_ask_is_still_in_the_log(
    hook: AgentyHook, caplog: pytest.LogCaptureFixture, finished_job: int, listener: Any
) -> None:
    import requests

    caplog.set_level(logging.DEBUG)
    hook.get_job(finished_job)
    requests.get(f"{listener.url}/somebody", timeout=10)

    assert re.search(r"urllib3.*GET /somebody", caplog.text)


def airflows_redact() -> Any:
    """Return what Airflow's logs go through; each version keeps it elsewhere."""
    for module in (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        if has(module, "redact"):
            return import_module(module).redact
    raise AssertionError("this Airflow has no redact")


def test_airflow_is_in_fact_told(hook: AgentyHook, sandbox: Sandbox, finished_job: int) -> None:
    redact = airflows_redact()
    signature = urlsplit(hook.get_export_link(finished_job)).query

    assert sandbox.key not in str(redact(f"the key {sandbox.key} and the link ?{signature}"))
    assert signature not in str(redact(f"the key {sandbox.key} and the link ?{signature}"))


def test_two_urls_lead_to_one_server_if_scheme_host_and_port_are_the_same() -> None:
    assert origin("https://API.agenty.com/v2") == origin("https://api.agenty.com:443/x?y")
    assert origin("http://localhost:80") == origin("http://localhost")
    assert origin("http://localhost") != origin("https://localhost")
    assert origin("https://localhost:444") != origin("https://localhost")
