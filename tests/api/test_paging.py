from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_agenty.api import logs
from airflow_provider_agenty.api.logs import LogEntry, read_entries, split_lines
from airflow_provider_agenty.exceptions import AgentyUnavailableError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.over_the_wire import BOOKS, page, requested

# Jobs


def test_jobs_come_newest_first(sandbox: Sandbox, hook: AgentyHook) -> None:
    older = sandbox.add_older_jobs(BOOKS, 3)
    newest = sandbox.start_job("w9qmlp5475")

    assert [job.job_id for job in hook.list_jobs()] == [newest, *older]
    assert [job.job_id for job in hook.list_jobs(BOOKS)] == older
    assert requested(sandbox, "/jobs")[-1]["agent_id"] == BOOKS


@pytest.mark.agenty_sandbox(page_cap=10)
def test_no_page_of_jobs_is_asked_for_before_it_is_needed(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.add_older_jobs(BOOKS, 25)

    jobs = hook.list_jobs()
    assert sandbox.requests == []
    list(itertools.islice(jobs, 10))
    assert len(sandbox.requests) == 1
    next(jobs)
    assert len(sandbox.requests) == 2
    assert len(list(jobs)) == 14
    assert len(sandbox.requests) == 3


@pytest.mark.agenty_sandbox(page_cap=10)
def test_no_job_comes_twice_when_new_ones_move_the_pages(sandbox: Sandbox, hook: AgentyHook) -> None:
    older = sandbox.add_older_jobs(BOOKS, 25)

    jobs = hook.list_jobs()
    found = [next(jobs).job_id]
    for _ in range(3):
        sandbox.start_job(BOOKS)
    found += [job.job_id for job in itertools.islice(jobs, 9)]
    sandbox.start_job(BOOKS)
    found += [job.job_id for job in jobs]

    assert found == older


def test_thousands_of_jobs_are_all_there(sandbox: Sandbox, hook: AgentyHook) -> None:
    older = sandbox.add_older_jobs(BOOKS, 2345)

    assert [job.job_id for job in hook.list_jobs(BOOKS)] == older
    assert len(sandbox.requests) == 3


def test_an_account_without_jobs_has_none(hook: AgentyHook, sandbox: Sandbox) -> None:
    assert list(hook.list_jobs()) == []
    assert len(sandbox.requests) == 1


def test_a_list_of_jobs_that_ends_before_its_total_ends(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("GET", "/jobs", body=page(5, {"job_id": 7, "status": "running"}))
    sandbox.fault("GET", "/jobs", body=page(5), after=1)

    assert [job.job_id for job in hook.list_jobs()] == [7]


# Logs


@pytest.fixture
def logged_job(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> int:
    """Give the id of a job with a log of some entries, one of them with several lines; pages are of 5 lines."""
    monkeypatch.setattr(logs, "LOG_PAGE", 5)
    job_id = sandbox.add_older_jobs(BOOKS, 1)[0]
    for number in range(9):
        sandbox.add_log(job_id, f"entry {number}")
    sandbox.add_log(job_id, "\n".join(["Traceback", *(f"  line {number}" for number in range(12))]), level="ERROR")
    sandbox.add_log(job_id, 'Job: {"job_id":3683463,"status":"started"}', level="WARN")
    return job_id


def test_a_log_is_read_to_its_end_page_by_page(sandbox: Sandbox, hook: AgentyHook, logged_job: int) -> None:
    lines = sandbox.log(logged_job)

    entries = list(hook.iter_logs(logged_job))

    assert sum(entry.message.count("\n") + 1 for entry in entries) == len(lines)
    assert entries[-1].next_offset == len(lines)
    queries = requested(sandbox, "/logs")
    assert [int(query["offset"]) for query in queries] == [*range(0, len(lines), 5), len(lines)]


def test_lines_that_begin_like_none_belong_to_the_entry_before_also_across_pages(
    hook: AgentyHook, logged_job: int
) -> None:
    [error] = [entry for entry in hook.iter_logs(logged_job) if entry.message.startswith("Traceback")]

    assert error.level == "ERROR"
    assert error.message.splitlines() == ["Traceback", *(f"  line {number}" for number in range(12))]


def test_a_line_may_hold_json(hook: AgentyHook, logged_job: int) -> None:
    *_, last = hook.iter_logs(logged_job)

    assert last.level == "WARN"
    assert last.message == 'Job: {"job_id":3683463,"status":"started"}'


def test_a_log_goes_on_exactly_where_it_was_left(hook: AgentyHook, logged_job: int) -> None:
    whole = list(hook.iter_logs(logged_job))

    for left in (1, len(whole) // 2, *range(len(whole) - 6, len(whole) + 1)):
        assert list(hook.iter_logs(logged_job, offset=whole[left - 1].next_offset)) == whole[left:]


def test_new_lines_are_read_from_the_offset_on(sandbox: Sandbox, hook: AgentyHook, logged_job: int) -> None:
    *_, last = hook.iter_logs(logged_job)
    assert list(hook.iter_logs(logged_job, offset=last.next_offset)) == []

    sandbox.add_log(logged_job, "one more")

    assert [entry.message for entry in hook.iter_logs(logged_job, offset=last.next_offset)] == ["one more"]


def test_a_log_is_not_asked_for_before_the_first_entry_is(sandbox: Sandbox, hook: AgentyHook, logged_job: int) -> None:
    entries = hook.iter_logs(logged_job)
    assert sandbox.requests == []
    next(entries)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("cap", [2500])
def test_a_page_of_a_log_is_as_long_as_agenty_allows(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, cap: int
) -> None:
    list(hook.iter_logs(finished_job))

    assert {query["limit"] for query in requested(sandbox, "/logs")} == {str(cap)}


def test_the_documented_lines_are_read() -> None:
    body = (
        b"2022-01-10T07:46:08.145Z INFO Worker id: 2\n"
        b'2022-01-10T07:46:08.169Z INFO Job: {"job_id":3683463,"agent_id":"459ypoj1gk"}\n'
        b"2022-01-10T07:46:10.230Z INFO REGEX: (\\d+)\\,(.*?) extracted 100 match(s) for field # Stores\n"
    )

    first, second, third = read_entries(split_lines(body), offset=0)

    assert first == LogEntry(datetime(2022, 1, 10, 7, 46, 8, 145000, tzinfo=UTC), "INFO", "Worker id: 2", 1)
    assert second.message == 'Job: {"job_id":3683463,"agent_id":"459ypoj1gk"}'
    assert third.message.endswith("for field # Stores")
    assert str(first) == "2022-01-10T07:46:08.145Z INFO Worker id: 2"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\n\ntwo\n", ["one", "", "two"]),
        (b"one\x0btwo\x85\n", ["one\x0btwo\ufffd"]),
        ("£\u2028x\n".encode(), ["£\u2028x"]),
        (b"\n", [""]),
    ],
)
def test_only_line_feeds_end_a_line(body: bytes, expected: list[str]) -> None:
    assert split_lines(body) == expected


def entries(*lines: str, offset: int = 0) -> Iterator[LogEntry]:
    return read_entries(lines, offset=offset)


def test_what_comes_before_the_first_entry_is_an_entry_without_a_time() -> None:
    cut, whole = entries("rest of an entry", "2022-01-10T07:46:08Z warn careful", offset=7)

    assert (cut.timestamp, cut.level, cut.message, cut.next_offset) == (None, "INFO", "rest of an entry", 8)
    assert (whole.level, whole.message, whole.next_offset) == ("WARN", "careful", 9)
    assert str(cut) == "- INFO rest of an entry"


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("2022-01-10T07:46:08.145Z ERROR", "ERROR", ""),
        ("2022-01-10T07:46:08.1452494Z INFO x", "INFO", "x"),
        ("2022-01-10T07:46:08+02:00  Info  two spaces", "INFO", " two spaces"),
        ("2022-01-10T07:46:08 INFO no zone", "INFO", "no zone"),
    ],
)
def test_an_entry_may_begin_in_several_forms(line: str, level: str, message: str) -> None:
    [entry] = entries(line)

    assert (entry.level, entry.message) == (level, message)
    assert entry.timestamp is not None
    assert entry.timestamp.tzinfo is UTC


@pytest.mark.parametrize("line", ["2022-99-10T07:46:08Z INFO x", "INFO x", " 2022-01-10T07:46:08Z INFO x", "", "}"])
def test_what_only_looks_like_a_beginning_belongs_to_the_entry_before(line: str) -> None:
    [entry] = entries("2022-01-10T07:46:08Z INFO first", line)

    assert entry.message == f"first\n{line}"
    assert entry.next_offset == 2


def test_the_last_entries_of_a_log_are_told_or_none_where_it_cannot_be_read(
    sandbox: Sandbox, hook: AgentyHook, logged_job: int
) -> None:
    assert [entry.level for entry in hook.last_log_entries(logged_job, count=2)] == ["ERROR", "WARN"]
    sandbox.fault("GET", "/jobs/{id}/logs", status=404)
    assert hook.last_log_entries(logged_job) == []


def test_a_log_that_agenty_cannot_give_is_an_error(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.fault("GET", "/jobs/{id}/logs", status=503, times=None)

    with pytest.raises(AgentyUnavailableError, match=f"GET /jobs/{finished_job}/logs"):
        list(hook.iter_logs(finished_job))


# Jobs since a moment


def described(job_id: int, made: datetime | None) -> dict[str, Any]:
    return {"job_id": job_id, "status": "completed", "created_at": made and made.isoformat()}


MOMENT = datetime(2026, 1, 10, 12, tzinfo=UTC)
BEFORE, AFTER = MOMENT - timedelta(seconds=1), MOMENT + timedelta(seconds=1)


@pytest.mark.agenty_sandbox(page_cap=10)
def test_jobs_since_a_moment_end_at_the_first_that_is_older(sandbox: Sandbox, hook: AgentyHook) -> None:
    older = sandbox.add_older_jobs(BOOKS, 100, apart=60)
    made = [datetime.fromisoformat(sandbox.job(job_id)["created_at"]) for job_id in older]

    found = [job.job_id for job in hook.list_jobs(since=made[14])]

    assert found == older[:15]
    assert len(sandbox.requests) == 2
    assert [job.job_id for job in hook.list_jobs(BOOKS, since=made[14] + timedelta(microseconds=999_999))] == older[:15]
    assert [job.job_id for job in hook.list_jobs("w9qmlp5475", since=made[14])] == []


@pytest.mark.parametrize(
    ("pages", "found", "asked"),
    [
        # Newest first.
        ([[(9, AFTER), (8, MOMENT), (7, BEFORE), (6, AFTER)], [(5, AFTER)]], [9, 8], 1),
        ([[(9, AFTER), (8, None), (7, BEFORE), (6, None)], [(5, AFTER)]], [9, 8], 1),
        ([[(9, AFTER)], [(8, BEFORE)], [(7, AFTER)]], [9], 2),
        # No order is shown, or another one.
        ([[(9, BEFORE)], [(8, AFTER)]], [8], 2),
        ([[(9, BEFORE)], [(10, AFTER)]], [10], 2),
        ([[(5, BEFORE), (6, AFTER)], [(7, None), (8, BEFORE)], [(9, AFTER)]], [6, 7, 9], 3),
        ([[(9, AFTER), (8, AFTER)], [(20, BEFORE), (21, AFTER)]], [9, 8, 21], 2),
    ],
)
def test_jobs_since_a_moment_are_read_on_where_no_order_shows(
    sandbox: Sandbox, hook: AgentyHook, pages: Any, found: list[int], asked: int
) -> None:
    total = sum(map(len, pages))
    for number, each in enumerate(pages):
        body = page(total, *(described(*job) for job in each))
        sandbox.fault("GET", "/jobs", after=number, status=200, body=body)

    assert [job.job_id for job in hook.list_jobs(since=MOMENT)] == found
    assert len(sandbox.requests) == asked
