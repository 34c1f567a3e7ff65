"""Where an answer becomes our data: whatever it holds, what comes out can be stored, logged and sent on."""

from __future__ import annotations

import copy
import gzip
import json
import multiprocessing
import pickle
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"
AWKWARD_KEY = 'k+/=%&?#"\\0123456789'
HALF_OF_AN_EMOJI = r"\ud83d"


def job_of(sandbox: Sandbox, hook: AgentyHook, fields: str) -> Job:
    sandbox.fault("GET", "/jobs/7", body=f'{{"job_id": 7, "status": "aborted", {fields}}}'.encode())
    return hook.get_job(7)


# Text


@pytest.mark.parametrize("field", ["error", "type", "agent_id", "unknown"])
def test_half_of_an_emoji_can_be_written_as_utf8(sandbox: Sandbox, hook: AgentyHook, field: str) -> None:
    job = job_of(sandbox, hook, f'"{field}": "Could not read: {HALF_OF_AN_EMOJI}"')

    json.dumps([job.to_dict(), dict(job.raw)], ensure_ascii=False).encode()


def test_half_of_an_emoji_is_shown_as_what_cannot_be_shown(sandbox: Sandbox, hook: AgentyHook) -> None:
    assert job_of(sandbox, hook, f'"error": "Could not read: {HALF_OF_AN_EMOJI}!"').error == "Could not read: \ufffd!"
    assert job_of(sandbox, hook, r'"error": "\ud83d\ude00"').error == "\U0001f600"


@pytest.mark.parametrize("status", [404, 422, 500])
def test_a_refusal_with_half_of_an_emoji_can_be_written_as_utf8(sandbox: Sandbox, connect: Any, status: int) -> None:
    body = f'{{"message": "no {HALF_OF_AN_EMOJI}", "details": ["{HALF_OF_AN_EMOJI}"]}}'.encode()
    sandbox.fault("GET", "/jobs/7", status=status, body=body)

    with pytest.raises(AgentyError, match="no \ufffd") as refused:
        connect({"max_attempts": 1}).get_job(7)
    str(refused.value).encode()


def test_control_characters_are_shown_and_not_sent(sandbox: Sandbox, hook: AgentyHook) -> None:
    job = job_of(
        sandbox, hook, r'"error": "\u001b[31mred\r\n[2026-01-01] INFO - forged\u0000\u0085\u2028\u202e", "type": "a\nb"'
    )

    assert job.error == r"\x1b[31mred\r\n[2026-01-01] INFO - forged\x00\x85\u2028\u202e"
    assert job.type == r"a\nb"


def test_a_long_text_is_shortened(sandbox: Sandbox, hook: AgentyHook) -> None:
    job = job_of(sandbox, hook, f'"error": "{"x" * 20_000_000}", "type": "{"y" * 10_000}"')

    assert job.error is not None
    assert job.error.startswith("xxx")
    assert len(job.error) == 4_000
    assert job.type is not None
    assert len(job.type) <= 100


def test_what_is_no_text_is_none(sandbox: Sandbox, hook: AgentyHook) -> None:
    job = job_of(sandbox, hook, '"error": {"a": [1]}, "type": ["x"], "agent_id": "../../dags/evil", "is_scheduled": []')

    assert (job.error, job.type, job.agent_id, job.is_scheduled) == (None, None, None, None)


@pytest.mark.agenty_sandbox(key=AWKWARD_KEY)
@pytest.mark.parametrize(
    "write", [str, lambda key: quote(key, safe=""), lambda key: json.dumps(key)[1:-1]], ids=["plain", "url", "json"]
)
def test_a_job_does_not_repeat_the_key(
    sandbox: Sandbox, hook: AgentyHook, write: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    repeated = json.dumps(f"the key {write(AWKWARD_KEY)} is wrong")
    job = job_of(sandbox, hook, f'"error": {repeated}, "type": {repeated}, "status_text": {repeated}')

    assert job.error == "the key *** is wrong"
    assert AWKWARD_KEY not in repr([job, job.raw])
    assert quote(AWKWARD_KEY, safe="") not in repr([job, job.raw])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("at https://files.example/x.csv?signature=s3cr3t&x=1 now", "at https://files.example/x.csv?*** now"),
        ("at https%3A%2F%2Ffiles.example%3Fsignature%3Ds3cr3t", "at https%3A%2F%2Ffiles.example%3F***"),
        ("https://somebody:s3cr3t@files.example/x", "https://***@files.example/x"),
        ("with X-Amz-Signature=s3cr3t, sorry", "with X-Amz-Signature=*** sorry"),
        ("Why? The file has no rows", "Why? The file has no rows"),
    ],
)
def test_a_job_does_not_repeat_a_signed_link(sandbox: Sandbox, hook: AgentyHook, error: str, expected: str) -> None:
    assert job_of(sandbox, hook, f'"error": {json.dumps(error)}').error == expected


# Numbers and times


@pytest.mark.parametrize("value", [str(2**63), str(-(2**64)), "9" * 400, "9" * 6_000, "1e400", "NaN", f'"{"9" * 400}"'])
@pytest.mark.parametrize("field", ["pages_processed", "account_id", "priority", "unknown"])
def test_a_number_beyond_64_bits_is_not_known(sandbox: Sandbox, hook: AgentyHook, field: str, value: str) -> None:
    job = job_of(sandbox, hook, f'"{field}": {value}, "pages_total": 10')

    assert job.to_dict().get(field) is None
    assert all(not isinstance(each, int) or abs(each) < 2**63 for each in job.raw.values())
    assert job.describe() == "aborted: 0/10 pages" or field == "unknown"


@pytest.mark.parametrize("job_id", [2**53, 2**61 - 1, 2**70, -7, 0])
def test_an_id_beyond_what_json_carries_is_none(sandbox: Sandbox, hook: AgentyHook, job_id: int) -> None:
    row = {"job_id": job_id, "status": "running"}
    sandbox.fault("GET", "/jobs", body={"total": 1, "result": [row]})

    with pytest.raises(AgentyError, match="without job_id"):
        list(hook.list_jobs())


def test_more_pages_than_there_are_means_that_their_number_is_not_known(sandbox: Sandbox, hook: AgentyHook) -> None:
    job = job_of(sandbox, hook, '"pages_total": 1, "pages_processed": 4')

    assert job.progress is None
    assert job.describe() == "aborted: 4 pages"


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00Z" + " " * 10_000, "9" * 10_000, "0001-01-01T00:00:00+23:59"],
    ids=["long", "none", "early"],
)
def test_a_time_that_is_none_is_not_known(sandbox: Sandbox, hook: AgentyHook, text: str) -> None:
    assert job_of(sandbox, hook, f'"created_at": "{text}", "queue_time": "{text}"').created_at is None


# Whole answers


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000 + b"]" * 200_000,
        b'{"job_id": 7, "status": "running", "x": ' + b"[" * 110 + b"]" * 110 + b"}",
        b'{"message": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
    ],
    ids=["very deep", "deep", "objects"],
)
@pytest.mark.parametrize("status", [200, 404, 400])
def test_what_is_nested_too_deep_is_an_error_of_ours(
    sandbox: Sandbox, hook: AgentyHook, body: bytes, status: int
) -> None:
    sandbox.fault("*", "/**", body=body, status=status, times=None)

    for call in (lambda: hook.get_job(7), lambda: hook.stop_job(7), lambda: list(hook.list_jobs())):
        with pytest.raises(AgentyError):
            call()
    with pytest.raises(AgentyError):
        hook.start_job(BOOKS, newer_than=0)


def test_a_start_whose_answer_cannot_be_read_is_looked_for(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", body=b"[" * 200_000, acted=True)

    assert [hook.start_job(BOOKS).job_id] == sandbox.started_jobs


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 5_000},
        {"Content-Length": "-5"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "gzip, gzip"},
        {"Retry-After": "Mon, 01 Jan 2026 00:00:00 +999999999999999999"},
        {"Retry-After": "9" * 5_000},
        {"Retry-After": "Mon, 99 Foo"},
        {"Location": "/\xff"},
        {"Location": "https://[bad"},
        {"Content-Type": "text/html; charset=nonsense"},
    ],
    ids=lambda headers: str(headers)[:40],
)
@pytest.mark.parametrize("status", [200, 302, 503])
def test_odd_headers_are_an_error_of_ours(connect: Any, listener: Any, headers: dict[str, str], status: int) -> None:
    listener.status, listener.headers, listener.body = status, headers, b"[]"
    hook = connect({"max_attempts": 2, "timeout": {"connect": 1, "read": 0.3}}, host=listener.url)

    for call in (lambda: hook.get_job(7), lambda: hook.stop_job(7), lambda: list(hook.list_jobs())):
        with pytest.raises(AgentyError):
            call()
    with pytest.raises(AgentyError):
        hook.start_job(BOOKS)


def test_an_answer_that_grows_when_it_is_decoded_is_given_up(
    connect: Any, listener: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener.headers = {"Content-Encoding": "gzip"}
    listener.body = gzip.compress(b'{"job_id": 7, "status": "running", "x": "' + b"x" * 100_000_000 + b'"}')

    with pytest.raises(AgentyError, match="larger than 64 MiB"):
        connect(host=listener.url).get_job(7)
    assert len(listener.requests) == 1


# Lists and logs without end


def test_a_list_that_skips_nothing_ends_where_it_brings_nothing_new(sandbox: Sandbox, hook: AgentyHook) -> None:
    rows = [{"job_id": n, "status": "running"} for n in range(1_000, 0, -1)]
    sandbox.fault("GET", "/jobs", body={"total": 10**9, "result": rows}, times=None)

    assert len(list(hook.list_jobs())) == 1_000
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize("lines", [1, 2_500])
def test_a_log_that_skips_nothing_ends_where_it_brings_nothing_new(
    sandbox: Sandbox, hook: AgentyHook, lines: int
) -> None:
    log = "".join(f"2026-01-01T00:00:00.{n:06}Z INFO line {n}\n" for n in range(lines))
    sandbox.fault("GET", "/jobs/7/logs", body=log.encode(), headers={"Content-Type": "text/plain"}, times=None)

    assert len(list(hook.iter_logs(7))) == lines
    assert len(hook.last_log_entries(7)) == min(lines, 50)


def log_in_pages(sandbox: Sandbox, *pages: str) -> None:
    for number, page in enumerate((*pages, "")):
        sandbox.fault(
            "GET", "/jobs/7/logs", body=page.encode(), headers={"Content-Type": "text/plain"}, status=200, after=number
        )


def test_an_entry_of_many_lines_is_shortened_and_counts_them(sandbox: Sandbox, hook: AgentyHook) -> None:
    log_in_pages(sandbox, "2026-01-01T00:00:00Z INFO many\n" + "a line of an entry\n" * 200_000)

    [entry] = hook.iter_logs(7)
    assert len(entry.message) == 4_000
    assert entry.next_offset == 200_001


def test_a_log_entry_is_cleaned(sandbox: Sandbox, hook: AgentyHook) -> None:
    text = f"2026-01-01T00:00:00Z INFO \x1b[31m {sandbox.key}\r\n  at https://files.example/x?signature=s3cr3t\n"
    log_in_pages(sandbox, text)

    [entry] = hook.iter_logs(7)
    assert entry.message == "\\x1b[31m ***\n  at https://files.example/x?***"


def test_a_page_that_was_logged_is_no_page(sandbox: Sandbox, hook: AgentyHook) -> None:
    log_in_pages(sandbox, "2026-01-01T00:00:00Z INFO got\n", "<!DOCTYPE html>\n<html>\n", "</html>\n")

    [entry] = hook.iter_logs(7)
    assert entry.message == "got\n<!DOCTYPE html>\n<html>\n</html>"


def test_a_page_at_the_very_start_is_no_log(sandbox: Sandbox, hook: AgentyHook) -> None:
    log_in_pages(sandbox, " <!doctype HTML>\n<p>Please log in</p>")

    with pytest.raises(AgentyError, match="is HTML, not a log"):
        list(hook.iter_logs(7))


# A deadline for each request, whatever the server does


@pytest.fixture
def dripping(listener: Any) -> Any:
    """Give a server that sends a byte now and then, and so lets no read time out."""
    listener.drip = 0.2
    return listener


def test_a_request_ends_although_a_byte_comes_now_and_then(connect: Any, dripping: Any) -> None:
    hook = connect({"max_attempts": 1, "timeout": {"connect": 0.4, "read": 0.4}}, host=dripping.url)

    for call in (lambda: hook.get_job(7), lambda: hook.stop_job(7), lambda: list(hook.iter_logs(7))):
        began = time.monotonic()
        with pytest.raises(AgentyUnavailableError, match="timeout"):
            call()
        assert time.monotonic() - began < 10


def test_a_wait_ends_at_its_timeout_although_a_byte_comes_now_and_then(connect: Any, dripping: Any) -> None:
    hook = connect({"timeout": {"connect": 10, "read": 30}}, host=dripping.url)
    began = time.monotonic()

    with pytest.raises(AgentyTimeoutError):
        hook.wait_for_job(7, timeout=0.6, poll_interval=0.1)
    assert time.monotonic() - began < 10


# Errors and hooks cross processes

JOB = Job(7, "aborted", error="reason")
ERRORS = [
    AgentyRequestError("text", message="m", details=("d",), status=422),
    AgentyUnavailableError("text", retry_after=3.0),
    AgentyJobFailedError("text", job=JOB, log_entries=()),
    AgentyJobStoppedError("text", job=JOB),
    AgentyTimeoutError("text", job=JOB),
    AgentyAmbiguousStartError("text", agent_id=BOOKS, candidates=(7, 8), may_clear_up=True),
    AgentyNotFoundError("text"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_is_copied_with_what_it_carries(error: AgentyError, way: Callable[[Any], Any]) -> None:
    copied = way(error)

    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


def _fail(number: int) -> None:
    raise AgentyJobFailedError(f"Job {number} was aborted", job=JOB)


def test_an_error_comes_out_of_a_pool_of_processes() -> None:
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(AgentyJobFailedError, match="Job 7") as raised,
    ):
        pool.apply_async(_fail, (7,)).get(timeout=60)
    assert raised.value.job == JOB


@pytest.mark.parametrize("way", [lambda hook: pickle.loads(pickle.dumps(hook)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("used", [False, True])
def test_a_hook_is_copied_used_or_not_and_without_the_key(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, way: Callable[[Any], Any], used: bool
) -> None:
    if used:
        hook.get_job(finished_job)
    assert sandbox.key.encode() not in pickle.dumps(hook)

    with way(hook) as copied:
        assert copied.get_job(finished_job).job_id == finished_job
