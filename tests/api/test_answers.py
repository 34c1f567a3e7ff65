from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyAuthError,
    AgentyError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"
AWKWARD_KEY = "k+/=%&?#0123456789"
HTML = "<!DOCTYPE html><html><body>Please log in</body></html>"

CALLS: dict[str, tuple[str, Callable[[AgentyHook, int], Any]]] = {
    "get_job": ("/jobs/{id}", lambda hook, job_id: hook.get_job(job_id)),
    "stop_job": ("/jobs/{id}/stop", lambda hook, job_id: hook.stop_job(job_id)),
    "list_jobs": ("/jobs", lambda hook, _: list(hook.list_jobs())),
    "iter_result": ("/jobs/{id}/result", lambda hook, job_id: list(hook.iter_result(job_id))),
    "count_result": ("/jobs/{id}/result", lambda hook, job_id: hook.count_result(job_id)),
    "get_export_link": ("/jobs/{id}/export", lambda hook, job_id: hook.get_export_link(job_id)),
    "iter_logs": ("/jobs/{id}/logs", lambda hook, job_id: list(hook.iter_logs(job_id))),
    "newest_job_id": ("/jobs", lambda hook, _: hook.newest_job_id(BOOKS)),
    "get_input": (f"/inputs/{BOOKS}", lambda hook, _: hook.get_input(BOOKS)),
}
JSON_CALLS = sorted(CALLS.keys() - {"iter_logs"})


def call(name: str, hook: AgentyHook, job_id: int) -> Any:
    return CALLS[name][1](hook, job_id)


def error_of(name: str, hook: AgentyHook, job_id: int) -> AgentyError:
    with pytest.raises(AgentyError) as raised:
        call(name, hook, job_id)
    return raised.value


def assert_says(error: AgentyError, name: str, job_id: int, *parts: str) -> None:
    path = CALLS[name][0].replace("{id}", str(job_id))
    for part in (f"GET {path}:", "HTTP 200", *parts):
        assert part in str(error)


# Answers that are none


@pytest.mark.parametrize("name", JSON_CALLS)
def test_html_with_200_is_an_error_that_shows_how_it_begins(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, name: str
) -> None:
    sandbox.fault("GET", CALLS[name][0], body=HTML, times=None)

    assert_says(error_of(name, hook, finished_job), name, finished_job, "is not JSON", "Please log in")


def test_html_with_200_is_no_log(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.fault("GET", "/jobs/{id}/logs", body=HTML, times=20)

    assert_says(error_of("iter_logs", hook, finished_job), "iter_logs", finished_job, "HTML", "Please log in")
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("name", sorted({*JSON_CALLS} - {"stop_job"}))
def test_an_answer_that_ends_too_early_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, name: str
) -> None:
    sandbox.fault("GET", CALLS[name][0], body='{"job_id":369000', times=None)

    assert_says(error_of(name, hook, finished_job), name, finished_job, "is not JSON", '{"')


@pytest.mark.parametrize("name", JSON_CALLS)
@pytest.mark.parametrize("body", [{"unexpected": "thing"}, ["unexpected", "thing"], {"data": {"unexpected": "thing"}}])
def test_an_answer_that_lacks_what_is_needed_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, name: str, body: Any
) -> None:
    sandbox.fault("GET", CALLS[name][0], body=body, times=None)

    assert_says(error_of(name, hook, finished_job), name, finished_job, "unexpected")


@pytest.mark.parametrize("name", ["get_job", "stop_job"])
def test_an_answer_with_another_job_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, name: str
) -> None:
    sandbox.fault("GET", CALLS[name][0], body={"job_id": 4711, "status": "completed"}, times=None)

    assert_says(error_of(name, hook, finished_job), name, finished_job, "another job", "4711")


@pytest.mark.parametrize("name", ["list_jobs", "newest_job_id"])
@pytest.mark.parametrize("row", [{"job_id": 7}, {"status": "running"}, "job", None])
def test_a_list_that_holds_something_else_than_jobs_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, name: str, row: Any
) -> None:
    sandbox.fault("GET", "/jobs", body={"total": 1, "limit": 1, "offset": 0, "returned": 1, "result": [row]})

    assert_says(error_of(name, hook, finished_job), name, finished_job, "total")


@pytest.mark.parametrize(
    "page",
    [
        {"total": 1},
        {"result": []},
        {"total": "many", "result": []},
        {"total": -1, "result": []},
        {"total": True, "result": [{}]},
        {"total": 1, "result": {"name": "x"}},
        {"total": 2, "result": [{"name": "x"}, "row"]},
    ],
)
def test_a_page_of_a_result_that_is_none_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, page: dict[str, Any]
) -> None:
    sandbox.fault("GET", "/jobs/{id}/result", body=page)

    assert_says(error_of("iter_result", hook, finished_job), "iter_result", finished_job)


@pytest.mark.parametrize("link", [None, "", 7, "ftp://files/x", "nonsense", "https://[bad?signature=s3cr3t-signature"])
def test_an_export_without_a_link_is_an_error(sandbox: Sandbox, hook: AgentyHook, finished_job: int, link: Any) -> None:
    sandbox.fault("GET", "/jobs/{id}/export", body={"downloadlink": link})

    error = error_of("get_export_link", hook, finished_job)

    assert_says(error, "get_export_link", finished_job, "no download link")
    assert "s3cr3t" not in str(error)


def test_only_the_first_characters_are_shown(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.fault("GET", "/jobs/{id}", body="x" * 100_000)

    assert len(str(error_of("get_job", hook, finished_job))) < 500


def test_an_answer_that_is_not_utf8_is_an_error_of_ours(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.fault("GET", "/jobs/{id}", body=b"\xff\xfe\x00{")

    assert_says(error_of("get_job", hook, finished_job), "get_job", finished_job, "is not JSON")


# What Agenty says


@pytest.mark.parametrize(
    ("body", "message", "details"),
    [
        ({"message": "No such field"}, "No such field", ()),
        ({"status_code": 400, "message": "Bad"}, "Bad", ()),
        ({"error": "Bad"}, "Bad", ()),
        ({"error_message": "Bad"}, "Bad", ()),
        ({"message": "Bad", "details": [{"error_message": "one"}, {"error_message": "two"}]}, "Bad", ("one", "two")),
        ({"message": "Bad", "details": {"limit": {"error_message": "one"}}}, "Bad", ("one",)),
        ({"message": "Bad", "details": ["one", 2, None, {"x": 1}]}, "Bad", ("one",)),
        ({"message": "Bad", "details": "one"}, "Bad", ()),
        ("plain words", "plain words", ()),
        ("<html>gateway</html>", "", ()),
        ([1], "", ()),
        ({}, "", ()),
    ],
)
def test_a_refusal_carries_what_agenty_says_in_whichever_shape(
    sandbox: Sandbox, hook: AgentyHook, body: Any, message: str, details: tuple[str, ...]
) -> None:
    sandbox.fault("GET", "/jobs/{id}", status=422, body=body)

    with pytest.raises(AgentyRequestError) as raised:
        hook.get_job(7)

    assert raised.value.message == message
    assert raised.value.details == details
    assert raised.value.status == 422
    assert all(said in str(raised.value) for said in ("GET /jobs/7", "HTTP 422", message, *details))
    assert "<html>" not in str(raised.value)


def test_a_wrong_key_is_an_auth_error_that_says_where_to_look(connect: Any, sandbox: Sandbox) -> None:
    with pytest.raises(AgentyAuthError, match=r"401.*Invalid API key.*does not know the API key.*password") as raised:
        connect(password="another-key").get_job(7)

    assert "another-key" not in str(raised.value)
    assert len(sandbox.requests) == 1


def test_a_key_without_permission_is_an_auth_error_that_says_so(hook: AgentyHook, sandbox: Sandbox) -> None:
    body = {"status_code": 403, "message": "You don't have permission to do that"}
    sandbox.fault("POST", "/jobs/start", status=403, body=body)
    with pytest.raises(AgentyAuthError, match=r"403.*permission.*may not do this.*role"):
        hook.start_job(BOOKS)

    assert sandbox.starts == 0


def test_an_unknown_job_is_not_found(hook: AgentyHook) -> None:
    with pytest.raises(AgentyNotFoundError, match="GET /jobs/7: HTTP 404 Not Found: Job 7 not found"):
        hook.get_job(7)


# Secrets

FAILURES: dict[str, dict[str, Any]] = {
    "400": {"status": 400, "body": {"message": "Bad key {key}", "details": [{"error_message": "at {url}"}]}},
    "401": {"status": 401, "body": {"message": "Unknown key {key}"}},
    "403": {"status": 403, "body": "no permission for {key} at {url}"},
    "404": {"status": 404, "body": "<p>{url}</p>"},
    "429": {"status": 429, "body": {"error": "{key} too often"}},
    "500": {"status": 500, "body": "crashed at {url}"},
    "501": {"status": 501, "body": "{key}"},
    "encoded": {"status": 502, "body": "the key {encoded} is wrong"},
    "html": {"body": "<html>{url}</html>"},
    "json": {"body": {"you": "{key}", "at": "{url}"}},
    "rows": {"body": {"total": 1, "result": ["{key}", "{url}"]}},
    "dropped before": {"drop": "before"},
    "dropped after": {"drop": "after"},
    "cut": {"cut": 5},
    "truncated": {"body": '{"job'},
    "timeout": {"hold": "before"},
    "redirect": {"redirect": "https://127.0.0.1:9/?apikey={key}", "body": "<a href='{url}'>"},
    "circles": {"redirect": "{url}"},
    "bad redirect": {"redirect": "https://[{key}/"},
    "bad gzip": {"body": "{key}", "headers": {"Content-Encoding": "gzip"}},
}


def filled_in(value: Any, **values: str) -> Any:
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: filled_in(each, **values) for key, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, **values) for each in value]
    return value


@pytest.mark.parametrize(("auth", "key"), [("header", None), ("query", AWKWARD_KEY)], ids=["header", "query"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_carries_the_key_however_deep_one_looks(
    connect: Any,
    texts_of: Callable[[BaseException], str],
    caplog: pytest.LogCaptureFixture,
    failure: str,
    auth: str,
    key: str | None,
) -> None:
    with Sandbox(key=key) as sandbox:
        assert_no_failure_carries_the_key(sandbox, connect, texts_of, caplog, FAILURES[failure], auth)


def assert_no_failure_carries_the_key(
    sandbox: Sandbox,
    connect: Any,
    texts_of: Callable[[BaseException], str],
    caplog: pytest.LogCaptureFixture,
    failure: dict[str, Any],
    auth: str,
) -> None:
    encoded = quote(sandbox.key, safe="")
    job_id = sandbox.add_older_jobs(BOOKS, 1)[0]
    url = f"{sandbox.url}/jobs/{job_id}?apikey={encoded}"
    fault = sandbox.fault("*", "/**", times=None, **filled_in(failure, key=sandbox.key, encoded=encoded, url=url))
    extra = {"auth": auth, "max_attempts": 2, "timeout": {"read": 0.05}}
    hook: AgentyHook = connect(extra, host=sandbox.url, password=sandbox.key)
    caplog.set_level("INFO")

    for name in CALLS:
        if name == "iter_logs" and failure in (FAILURES["json"], FAILURES["rows"], FAILURES["truncated"]):
            continue
        found = texts_of(error_of(name, hook, job_id))
        assert sandbox.key not in found
        assert encoded not in found
    with pytest.raises((AgentyError, AgentyAmbiguousStartError)) as raised:
        hook.start_job(BOOKS, newer_than=0)
    found = texts_of(raised.value) + caplog.text
    assert sandbox.key not in found
    assert encoded not in found
    fault.remove()


@pytest.mark.parametrize("auth", ["query", "header"])
@pytest.mark.parametrize("kind", ["refused", "dns", "proxy", "tls"])
def test_no_failure_to_connect_carries_the_key(
    connect: Any, texts_of: Callable[[BaseException], str], closed_port: int, certificate: Any, kind: str, auth: str
) -> None:
    extra: dict[str, Any] = {"auth": auth, "max_attempts": 1}
    key, proxy_password = "0123456789-the-key", "proxy-password"
    with Sandbox(certfile=certificate.certfile, keyfile=certificate.keyfile) as tls:
        host = {"refused": f"https://127.0.0.1:{closed_port}", "dns": "https://agenty.invalid", "tls": tls.url}.get(
            kind
        )
        if kind == "proxy":
            host = tls.url
            extra["proxies"] = f"http://user:{proxy_password}@127.0.0.1:{closed_port}"
        hook = connect(extra, host=host, password=key)
        for name in CALLS:
            found = texts_of(error_of(name, hook, 7))
            assert key not in found
            assert proxy_password not in found
        assert tls.requests == []


LINK_FAILURES: dict[str, dict[str, Any]] = {
    "truncated": {"body": '{"downloadlink":"https://files.example/Job_7/x.csv?signature=s3cr3t-signat'},
    "html": {"body": "<a href='https://files.example/Job_7/x.csv?signature=s3cr3t-signature'>x</a>"},
    "escaped": {"body": '{"downloadlink": "https:\\/\\/files.example\\/x.csv?signature=s3cr3t-signature'},
    "other name": {"body": {"url": "https://files.example/Job_7/x.csv?signature=s3cr3t-signature"}},
    "refused": {"status": 422, "body": {"message": "https://files.example/x.csv?signature=s3cr3t-signature is gone"}},
    "redirect": {"redirect": "https://files.example/x.csv?signature=s3cr3t-signature"},
    "text": {"status": 500, "body": "https://files.example/x.csv?a=1&signature=s3cr3t-signature"},
}


@pytest.mark.parametrize("failure", LINK_FAILURES)
def test_no_failure_to_get_a_link_carries_its_signature(
    sandbox: Sandbox,
    connect: Any,
    texts_of: Callable[[BaseException], str],
    finished_job: int,
    failure: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Any,
) -> None:
    sandbox.fault("GET", "/jobs/{id}/export", times=None, **LINK_FAILURES[failure])
    hook: AgentyHook = connect({"max_attempts": 2})

    for attempt in (
        lambda: hook.get_export_link(finished_job),
        lambda: hook.download_export(finished_job, str(tmp_path / "books.csv")),
    ):
        with pytest.raises(AgentyError) as raised:
            attempt()
        found = texts_of(raised.value) + caplog.text
        assert "s3cr3t" not in found
        assert not re.search(r"signature=\w", found)


@pytest.mark.parametrize(
    "failure",
    [
        {"status": 500, "times": None},
        {"status": 403, "body": "<Error>https://x/?signature=y</Error>", "times": None},
        {"status": 418},
        {"drop": "before", "times": None},
        {"redirect": "http://files.example/x.csv"},
        {"body": "<html>no</html>", "times": None},
    ],
    ids=["500", "403", "418", "dropped", "plain http", "html"],
)
def test_no_failure_of_a_download_carries_the_link(
    sandbox: Sandbox,
    connect: Any,
    texts_of: Callable[[BaseException], str],
    finished_job: int,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Any,
    failure: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_provider_agenty.landing.download.time.sleep", lambda _: None)
    sandbox.download_fault(**failure)
    links: list[str] = []
    hook: AgentyHook = connect({"max_attempts": 2})
    get_export_link = hook.get_export_link

    def noting(*args: Any, **kwargs: Any) -> str:
        links.append(get_export_link(*args, **kwargs))
        return links[-1]

    monkeypatch.setattr(hook, "get_export_link", noting)

    with pytest.raises(AgentyError) as raised:
        hook.download_export(finished_job, str(tmp_path / "books.csv"))

    found = texts_of(raised.value) + caplog.text
    assert links
    for link in links:
        assert urlsplit(link).query not in found
    assert not re.search(r"signature=\w", found)
    assert list(tmp_path.iterdir()) == []


def test_a_download_follows_a_redirect_to_another_host_without_the_key(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, listener: Any, tmp_path: Any
) -> None:
    rows = hook.count_result(finished_job)
    listener.body = b"name\n" + b"A book\n" * rows
    sandbox.download_fault(redirect=f"{listener.url}/mirror/books.csv")

    landed = hook.download_export(finished_job, str(tmp_path / "books.csv"))

    assert landed.rows == rows
    assert len(listener.requests) == 1
    assert sandbox.key not in listener.everything


def test_the_download_host_is_never_sent_the_key(
    sandbox: Sandbox, connect: Any, finished_job: int, tmp_path: Any
) -> None:
    for auth in ("header", "query"):
        connect({"auth": auth}).download_export(finished_job, str(tmp_path / f"{auth}.csv"))

    downloads = [request for request in sandbox.requests if request.host == "downloads"]
    assert len(downloads) == 2
    assert {request.key_in for request in downloads} == {None}


def test_a_failure_while_another_is_handled_is_told_as_what_it_is(
    sandbox: Sandbox, connect: Any, closed_port: int, finished_job: int
) -> None:
    import requests

    hook: AgentyHook = connect({"timeout": {"read": 0.05}, "max_attempts": 1})
    held = sandbox.fault("GET", "/jobs/{id}", hold="before")
    try:
        requests.get(f"http://127.0.0.1:{closed_port}", timeout=1)
    except requests.ConnectionError:
        with pytest.raises(AgentyUnavailableError, match=r"no answer from 127.0.0.1 within"):
            hook.get_job(finished_job)
    held.release()
