"""An agent's input: read, set, and set right before a start."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_agenty.api.inputs import AgentInput
from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyError,
    AgentyInputError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
    AgentyUnexpectedAnswerError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS, RETAILERS = "45l0wewqzk", "w9qmlp5475"
A, B = "https://example.com/a", "http://example.com:8080/b?page=2&x=ü"


def calls(sandbox: Sandbox) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in sandbox.requests]


def sent(sandbox: Sandbox) -> Any:
    return json.loads(sandbox.requests[-1].body)


def puts(sandbox: Sandbox) -> int:
    return sum(request.method == "PUT" for request in sandbox.requests)


# Reading


def test_an_input_that_was_set_is_read(sandbox: Sandbox, hook: AgentyHook) -> None:
    hook.set_input(BOOKS, [A, B])

    assert hook.get_input(BOOKS) == AgentInput(type="manual", data=(A, B))
    assert calls(sandbox) == [("PUT", f"/inputs/{BOOKS}"), ("GET", f"/inputs/{BOOKS}")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"type": "url", "collection": 1, "data": [A]}, AgentInput("url", (A,), collection=1)),
        ({"type": "MANUAL", "data": [A], "reference": None}, AgentInput("manual", (A,))),
        ({"type": "url", "data": A}, AgentInput("url", (A,))),
        ({"type": "url", "data": None}, AgentInput("url")),
        (
            {"type": "list", "id": 2436, "collection": "1", "field": "url", "data": []},
            AgentInput("list", id="2436", collection=1, field="url"),
        ),
        ({"data": {"type": "agent", "id": "x", "field": "U"}}, AgentInput("agent", id="x", field="U")),
        ({"type": "psychic"}, AgentInput("psychic")),
    ],
)
def test_an_input_is_read_in_each_of_its_shapes(
    sandbox: Sandbox, hook: AgentyHook, answer: dict[str, Any], expected: AgentInput
) -> None:
    sandbox.fault("GET", f"/inputs/{BOOKS}", body=answer)

    found = hook.get_input(BOOKS)

    assert found == expected
    assert found.raw in (answer, answer.get("data"))


@pytest.mark.parametrize(
    "body",
    [{}, [], None, {"type": 7}, {"type": " "}, {"type": "url", "data": [7]}, {"type": "url", "data": 7}, "<html>"],
)
def test_an_answer_that_holds_no_input_is_an_error(sandbox: Sandbox, hook: AgentyHook, body: Any) -> None:
    sandbox.fault("GET", f"/inputs/{BOOKS}", body=b"null" if body is None else body)

    with pytest.raises(AgentyError, match=rf"GET /inputs/{BOOKS}: the answer \(HTTP 200\)"):
        hook.get_input(BOOKS)


# Setting


@pytest.mark.parametrize(
    "given",
    [
        [A, B],
        (A, B),
        iter([A, B]),
        [f" {A}\n", B],
        f"{A}\n{B}",
        f"\n  {A}\r\n\n  {B}\n",
        f'["{A}", "{B}"]',
        f" ['{A}', '{B}']\n",
        {"type": "manual", "data": [A, B]},
        {"type": " Manual ", "data": f"{A}\n{B}"},
        AgentInput("manual", (A, B)),
    ],
)
def test_urls_are_taken_as_people_have_them(sandbox: Sandbox, hook: AgentyHook, given: Any) -> None:
    hook.set_input(BOOKS, given)

    assert sent(sandbox) == {"type": "manual", "data": [A, B]}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "url", "data": [A]},
        {"type": "list", "data": [A], "id": "2436", "collection": 1, "field": "url"},
        {"type": "agent", "data": [], "id": RETAILERS, "field": "URL"},
    ],
)
def test_other_inputs_are_set_and_read_back_alike(sandbox: Sandbox, hook: AgentyHook, given: dict[str, Any]) -> None:
    hook.set_input(BOOKS, given)
    assert sent(sandbox) == given

    before = hook.get_input(BOOKS)
    hook.set_input(BOOKS, [B])
    hook.set_input(BOOKS, before)

    assert before.to_dict() == given
    assert sent(sandbox) == given


BAD_URLS = [
    ([], "empty"),
    ("", "empty"),
    (" \n ", "empty"),
    ("[]", "empty"),
    (iter([]), "empty"),
    (7, "not 7"),
    (True, "not True"),
    (b"https://example.com", "not a bytes"),
    ([A, "example.com/b"], "item 2 is no URL: 'example.com/b'"),
    ([A, ""], "item 2"),
    ([A, None], "item 2 is no URL: None"),
    ([A, 7], "item 2 is no URL: 7"),
    ([[A], [B]], "item 1 is no URL: a list"),
    ([{"url": A}], "item 1 is no URL: a dict"),
    (["ftp://example.com/a"], "ftp://example.com/a"),
    (["file:///etc/passwd"], "file:///etc/passwd"),
    (["https://"], "'https://'"),
    (["https:///a"], "'https:///a'"),
    (["//example.com/a"], "'//example.com/a'"),
    (["https://example.com/a b"], "no space"),
    (["https://example.com/a\tb"], "item 1"),
    (["https://example.com/a\nhttps://example.com/b"], "item 1"),
    (["https://example.com/\u200b"], "item 1"),
    (["https://example.com:port/"], "item 1"),
    (["https://example.com:99999/"], "item 1"),
    (["https://[::1/"], "item 1"),
    (f"{A}, {B}", "a line of its own"),
    ("None", "'None'"),
    ("{{ params.urls }}", "params.urls"),
    ('["https://example.com/a"', "tojson"),
    ("[https://example.com/a]", "tojson"),
    ("[[" * 5000, "tojson"),
]


@pytest.mark.parametrize(("urls", "said"), BAD_URLS, ids=[str(said) for _, said in BAD_URLS])
def test_urls_that_cannot_be_are_refused_before_anything_is_sent(
    sandbox: Sandbox, hook: AgentyHook, urls: Any, said: str
) -> None:
    with pytest.raises(AgentyInputError) as refused:
        hook.set_input(BOOKS, urls)

    assert said in str(refused.value)
    assert sandbox.requests == []


@pytest.mark.parametrize("urls", [None, {"type": "manual", "data": [A]}, [], "x"])
def test_a_start_takes_urls_only(sandbox: Sandbox, hook: AgentyHook, urls: Any) -> None:
    if urls is None:
        assert hook.start_job(BOOKS, urls=urls)
        assert puts(sandbox) == 0
        return
    with pytest.raises(AgentyInputError, match="urls"):
        hook.start_job(BOOKS, urls=urls)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "type None"),
        ({"type": "psychic", "data": [A]}, "'psychic'"),
        ({"type": "manual"}, "new: data is a list of URLs, not None"),
        ({"type": "url", "data": []}, "new: data is empty"),
        ({"type": "list", "field": "url"}, "needs id"),
        ({"type": "list", "id": "  ", "field": "url"}, "needs id"),
        ({"type": "agent", "id": "x"}, "needs field"),
        ({"type": "agent", "id": "x", "field": "u", "collection": 0}, "collection"),
        ({"type": "agent", "id": "x", "field": "u", "data": A}, "list of text"),
        ({"type": "agent", "id": "x", "field": "u", "data": [7]}, "list of text"),
        (AgentInput("psychic"), "'psychic'"),
    ],
)
def test_an_input_that_cannot_be_is_refused_before_anything_is_sent(
    sandbox: Sandbox, hook: AgentyHook, given: Any, said: str
) -> None:
    with pytest.raises(AgentyInputError, match=said):
        hook.set_input(BOOKS, given)
    assert sandbox.requests == []


def test_a_message_shows_neither_password_nor_query_of_a_url(hook: AgentyHook) -> None:
    with pytest.raises(AgentyInputError) as refused:
        hook.set_input(BOOKS, ["https://me:pass@word@example.com/a b?token=secret"])

    assert "//***@example.com/a b?…" in str(refused.value)
    assert "word" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_long_item_is_cut_in_the_message(hook: AgentyHook) -> None:
    with pytest.raises(AgentyInputError) as refused:
        hook.set_input(BOOKS, ["x" * 10_000])

    assert len(str(refused.value)) < 400


# When the answer is none


@pytest.mark.parametrize(
    "lost", [{"drop": "before"}, {"drop": "after"}, {"status": 503}, {"status": 500, "acted": True}, {"status": 429}]
)
def test_setting_is_repeated_as_a_read_is(sandbox: Sandbox, hook: AgentyHook, lost: dict[str, Any]) -> None:
    sandbox.fault("PUT", "/inputs/*", times=2, **lost)

    hook.set_input(BOOKS, [A])

    assert puts(sandbox) == 3
    assert hook.get_input(BOOKS).data == (A,)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 401}, AgentyAuthError),
        ({"status": 403}, AgentyAuthError),
        ({"status": 404}, AgentyNotFoundError),
        ({"status": 413}, AgentyRequestError),
        ({"status": 400, "body": {"status_code": 400, "message": "Too many inputs"}}, AgentyRequestError),
        ({"status": 503}, AgentyUnavailableError),
        ({"status": 501}, AgentyUnavailableError),
        ({"drop": "after"}, AgentyUnavailableError),
        ({"body": {"status_code": 400, "message": "Input is locked"}}, AgentyUnexpectedAnswerError),
        ({"body": {"status_code": "500"}}, AgentyUnexpectedAnswerError),
        ({"body": {"data": {"status_code": 404}}}, AgentyUnexpectedAnswerError),
        ({"body": "<html>Please log in</html>"}, AgentyUnexpectedAnswerError),
        ({"body": b"null"}, AgentyUnexpectedAnswerError),
        ({"body": []}, AgentyUnexpectedAnswerError),
        ({"body": b""}, AgentyUnexpectedAnswerError),
        ({"status": 302, "redirect": "/v2/jobs"}, AgentyUnexpectedAnswerError),
    ],
)
@pytest.mark.parametrize("through", ["set_input", "start_job"])
def test_where_the_input_is_not_set_nothing_is_started(
    sandbox: Sandbox, hook: AgentyHook, fault: dict[str, Any], expected: type[AgentyError], through: str
) -> None:
    sandbox.fault("PUT", "/inputs/*", times=None, **fault)
    call: Callable[[], Any] = {
        "set_input": lambda: hook.set_input(BOOKS, [A]),
        "start_job": lambda: hook.start_job(BOOKS, urls=[A]),
    }[through]

    with pytest.raises(expected, match=f"PUT /inputs/{BOOKS}") as error:
        call()

    assert type(error.value) is expected
    assert sandbox.starts == 0
    assert not any(request.method == "POST" for request in sandbox.requests)


@pytest.mark.parametrize(
    "answer",
    [
        {"status_code": 200, "message": "Input updated succesfully"},
        {"data": {"status_code": 200}},
        {"status_code": "200"},
        {"message": "input updated successfully"},
    ],
)
def test_the_input_is_taken_for_set_where_the_answer_says_so(
    sandbox: Sandbox, hook: AgentyHook, answer: dict[str, Any]
) -> None:
    sandbox.fault("PUT", "/inputs/*", body=answer, acted=True)

    hook.start_job(BOOKS, urls=[A])

    assert sandbox.starts == 1


@pytest.mark.parametrize(
    ("given", "told"), [([A], "1 URL"), ([A, B], "2 URLs"), ({"type": "list", "id": "7", "field": "u"}, "list 7")]
)
def test_the_log_says_what_was_set(hook: AgentyHook, caplog: pytest.LogCaptureFixture, given: Any, told: str) -> None:
    caplog.set_level(logging.INFO)

    hook.set_input(BOOKS, given)

    assert f"Set the input of agent {BOOKS}: {told}" in caplog.messages
    assert A not in caplog.text


# Right before a start


def test_the_input_is_set_between_the_look_at_the_newest_job_and_the_start(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = sandbox.start_job(BOOKS)
    seen: list[tuple[int, int]] = []

    job = hook.start_job(BOOKS, urls=f"{A}\n{B}", prepare=lambda job_id: seen.append((job_id, puts(sandbox))))

    assert calls(sandbox) == [("GET", "/jobs"), ("PUT", f"/inputs/{BOOKS}"), ("POST", "/jobs/start")]
    assert seen == [(newest, 1)]
    sandbox.set_status(job.job_id, "completed")
    assert [row["url"] for row in hook.iter_result(job.job_id)] == [A, B]


def test_without_urls_the_input_is_left_as_it_is(sandbox: Sandbox, hook: AgentyHook) -> None:
    hook.start_job(BOOKS)

    assert puts(sandbox) == 0


def test_what_prepare_raises_is_raised_and_nothing_is_started(sandbox: Sandbox, hook: AgentyHook) -> None:
    def fail(newest_job_id: int) -> None:
        assert newest_job_id == 0
        raise LookupError("no store")

    with pytest.raises(LookupError, match="no store"):
        hook.start_job(BOOKS, prepare=fail)

    assert calls(sandbox) == [("GET", "/jobs")]


def test_a_start_that_is_sent_again_is_prepared_again(sandbox: Sandbox, hook: AgentyHook) -> None:
    """Somebody else may have set the input while the lost start was looked for."""
    lost = sandbox.fault("POST", "/jobs/start", drop="before")
    prepared: list[int] = []

    def prepare(newest_job_id: int) -> None:
        prepared.append(lost.hits)

    job = hook.start_job(BOOKS, urls=[A], prepare=prepare)

    assert prepared == [0, 1]
    assert [method for method, _ in calls(sandbox) if method != "GET"] == ["PUT", "POST", "PUT", "POST"]
    assert sandbox.started_jobs == [job.job_id]


def test_a_job_whose_answer_was_lost_is_found_and_its_input_left_alone(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", drop="after")

    job = hook.start_job(BOOKS, urls=[A])

    assert sandbox.started_jobs == [job.job_id]
    assert puts(sandbox) == 1


@pytest.mark.parametrize(
    ("status", "warned"),
    [
        ("submitted", True),
        ("starting", True),
        ("queued", True),
        ("started", False),
        ("running", False),
        ("completed", False),
        ("stopping", False),
        ("weird", False),
    ],
)
@pytest.mark.parametrize("urls", [[A], None])
def test_a_job_that_may_not_have_read_its_input_yet_is_warned_of(
    sandbox: Sandbox, hook: AgentyHook, caplog: pytest.LogCaptureFixture, status: str, urls: Any, *, warned: bool
) -> None:
    other = sandbox.start_job(BOOKS)
    sandbox.set_status(other, status)

    hook.start_job(BOOKS, urls=urls)

    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == (1 if warned and urls else 0)
    if told:
        assert f"Job {other} of agent {BOOKS} is {status}" in told[0].getMessage()
