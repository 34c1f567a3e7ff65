from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_agenty.api import start_job
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyAuthError,
    AgentyError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.existing_job import find_job_of_run
from airflow_provider_agenty.sandbox import Fault, Sandbox
from tests.loopback import serving
from tests.sandbox_faults import Reset

BOOKS = "45l0wewqzk"
READ_TIMEOUT = 0.3

LOST = {
    "dropped": {"drop": "after"},
    "reset": {"drop": "after"},
    "cut": {"cut": 10},
    "500": {"status": 500, "acted": True},
    "502": {"status": 502, "acted": True, "body": "<html>Bad gateway</html>"},
    "503": {"status": 503, "acted": True, "headers": {"Retry-After": "1"}},
    "504": {"status": 504, "acted": True},
    "501": {"status": 501, "acted": True},
    "html": {"body": "<html>OK</html>", "acted": True},
    "empty": {"body": "", "acted": True},
    "no content": {"status": 204, "acted": True},
    "no job": {"body": {"message": "started"}, "acted": True},
    "null": {"body": b"null", "acted": True},
    "truncated": {"body": '{"job_id":3690001,"ac', "acted": True},
    "redirect": {"status": 303, "redirect": "/v2/jobs", "acted": True},
    "redirect of the method too": {"status": 307, "redirect": "/v2/jobs/start", "acted": True},
}
NOT_ARRIVED = {
    "dropped": {"drop": "before"},
    "reset": {"drop": "before"},
    "500": {"status": 500},
    "502": {"status": 502},
    "503": {"status": 503},
    "504": {"status": 504},
}


def job_of_run(hook: AgentyHook, since: datetime) -> Job | None:
    return find_job_of_run(hook, BOOKS, run_began=since, of_other_tasks=(), urls=None, max_failed_ratio=None)


def fault_class(lost: str) -> type[Fault]:
    return Reset if lost == "reset" else Fault


def posts(sandbox: Sandbox) -> int:
    return sum(request.method == "POST" for request in sandbox.requests)


def lists(sandbox: Sandbox) -> int:
    return sum(request.method == "GET" and request.path == "/jobs" for request in sandbox.requests)


def test_a_start_remembers_the_newest_job_and_is_sent_once(sandbox: Sandbox, hook: AgentyHook) -> None:
    job = hook.start_job(BOOKS)

    assert [(request.method, request.path) for request in sandbox.requests] == [
        ("GET", "/jobs"),
        ("POST", "/jobs/start"),
    ]
    assert sandbox.requests[0].query == {"agent_id": BOOKS, "limit": "100", "offset": "0"}
    assert sandbox.started_jobs == [job.job_id]
    assert job.agent_id == BOOKS


def test_a_remembered_job_need_not_be_asked_for(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = sandbox.start_job(BOOKS)
    assert hook.newest_job_id(BOOKS) == newest
    sandbox.clear()

    hook.start_job(BOOKS, newer_than=newest)

    assert (posts(sandbox), lists(sandbox)) == (1, 0)


def test_an_agent_without_jobs_has_the_newest_job_0(hook: AgentyHook) -> None:
    assert hook.newest_job_id(BOOKS) == 0


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("older_jobs", [0, 2])
def test_a_job_whose_answer_was_lost_is_found_and_not_started_again(
    sandbox: Sandbox, hook: AgentyHook, lost: str, older_jobs: int
) -> None:
    sandbox.add_older_jobs(BOOKS, older_jobs)
    sandbox.add_fault(fault_class(lost)("POST", "/jobs/start", **LOST[lost]))  # type: ignore[arg-type]

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1


@pytest.mark.parametrize("lost", NOT_ARRIVED)
def test_a_start_that_did_not_arrive_is_sent_again(sandbox: Sandbox, hook: AgentyHook, lost: str) -> None:
    sandbox.add_older_jobs(BOOKS, 2)
    sandbox.add_fault(fault_class(lost)("POST", "/jobs/start", **NOT_ARRIVED[lost]))  # type: ignore[arg-type]

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 2
    assert lists(sandbox) == 1 + start_job.POLICY.lookups


def test_a_start_that_never_arrives_is_sent_a_bounded_number_of_times(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", status=503, times=None)

    with pytest.raises(AgentyUnavailableError, match="POST /jobs/start: HTTP 503"):
        hook.start_job(BOOKS)

    assert posts(sandbox) == start_job.POLICY.attempts
    assert sandbox.starts == 0


def test_a_job_that_is_listed_late_is_found_by_looking_again(
    sandbox: Sandbox, hook: AgentyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_job, "POLICY", start_job.StartPolicy(attempts=3, lookups=4, first_wait=0.01))
    empty = {"total": 0, "limit": 100, "offset": 0, "returned": 0, "result": []}
    sandbox.fault("GET", "/jobs", body=empty, times=2, after=1)
    sandbox.fault("POST", "/jobs/start", drop="after")

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1


# Time runs out


def test_a_start_whose_answer_does_not_come_in_time_is_found(sandbox: Sandbox, connect: Any) -> None:
    held = sandbox.fault("POST", "/jobs/start", hold="after")

    job = connect({"timeout": {"read": READ_TIMEOUT}}).start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1
    held.release()


def test_after_a_timeout_the_list_must_stay_empty_for_one_more_before_the_start_is_sent_again(
    sandbox: Sandbox, connect: Any
) -> None:
    held = sandbox.fault("POST", "/jobs/start", hold="before")

    job = connect({"timeout": {"read": READ_TIMEOUT}}).start_job(BOOKS)

    first, second = (request.time for request in sandbox.requests if request.method == "POST")
    assert second - first >= 2 * READ_TIMEOUT
    assert sandbox.started_jobs == [job.job_id]
    held.remove()


def test_a_start_that_arrives_within_one_more_timeout_is_found_and_not_sent_again(
    sandbox: Sandbox, connect: Any
) -> None:
    held = sandbox.fault("POST", "/jobs/start", hold="before")

    def let_it_arrive() -> None:
        sandbox.wait_for_request("GET", "/jobs", count=2)
        held.release()

    thread = threading.Thread(target=let_it_arrive)
    thread.start()
    # Long enough that the request arrives within the time on a busy machine.
    job = connect({"timeout": {"read": 1.0}}).start_job(BOOKS)
    thread.join()

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1


@pytest.mark.parametrize("kind", ["refused", "dns", "tls"])
def test_a_timeout_is_not_taken_for_a_failure_that_is_being_handled(
    sandbox: Sandbox, connect: Any, closed_port: int, kind: str
) -> None:
    import socket
    import ssl

    before = {
        "refused": ConnectionRefusedError(),
        "dns": socket.gaierror(),
        "tls": ssl.SSLCertVerificationError(),
    }[kind]
    held = sandbox.fault("POST", "/jobs/start", hold="after")
    hook: AgentyHook = connect({"timeout": {"read": READ_TIMEOUT}})
    try:
        raise before
    except OSError:
        job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1
    held.release()


# Nothing was sent


def test_a_refused_connection_sent_nothing_and_is_simply_tried_again(
    connect: Any, closed_port: int, slept: list[float]
) -> None:
    hook: AgentyHook = connect(host=f"http://127.0.0.1:{closed_port}")

    with pytest.raises(AgentyUnavailableError, match=r"POST /jobs/start: 127.0.0.1 refused the connection"):
        hook.start_job(BOOKS, newer_than=0)

    assert len(slept) == 4


def test_too_many_requests_started_nothing_and_is_tried_again_after_the_time_asked_for(
    sandbox: Sandbox, hook: AgentyHook, slept: list[float]
) -> None:
    sandbox.fault("POST", "/jobs/start", status=429, headers={"Retry-After": "0"}, times=2)

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 3
    assert lists(sandbox) == 1
    assert len(slept) == 2


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, AgentyRequestError),
        (401, AgentyAuthError),
        (402, AgentyRequestError),
        (403, AgentyAuthError),
        (404, AgentyNotFoundError),
        (409, AgentyRequestError),
    ],
)
def test_a_refused_start_is_not_sent_again(
    sandbox: Sandbox, hook: AgentyHook, status: int, expected: type[AgentyError]
) -> None:
    sandbox.fault("POST", "/jobs/start", status=status, body={"message": "No credit left"}, times=None)

    with pytest.raises(expected, match=f"POST /jobs/start: HTTP {status}.*No credit left"):
        hook.start_job(BOOKS)

    assert posts(sandbox) == 1
    assert sandbox.starts == 0


def test_an_unknown_agent_is_not_found(sandbox: Sandbox, hook: AgentyHook) -> None:
    with pytest.raises(AgentyNotFoundError, match="Agent nosuchagent not found"):
        hook.start_job("nosuchagent")

    assert posts(sandbox) == 1


def test_no_start_is_sent_where_the_newest_job_cannot_be_remembered(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("GET", "/jobs", status=503, times=None)

    with pytest.raises(AgentyUnavailableError):
        hook.start_job(BOOKS)

    assert posts(sandbox) == 0


# Which job it is


def test_a_job_that_agentys_scheduler_started_meanwhile_is_not_adopted(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = hook.newest_job_id(BOOKS)
    scheduled = sandbox.start_job(BOOKS, is_scheduled=True)
    sandbox.fault("POST", "/jobs/start", drop="before")

    job = hook.start_job(BOOKS, newer_than=newest)

    assert job.job_id != scheduled
    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 2


def test_ones_own_job_is_told_from_those_of_agentys_scheduler(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = hook.newest_job_id(BOOKS)
    sandbox.start_job(BOOKS, is_scheduled=True)
    sandbox.fault("POST", "/jobs/start", drop="after")

    job = hook.start_job(BOOKS, newer_than=newest)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1


def test_a_job_of_another_agent_is_not_adopted(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = hook.newest_job_id(BOOKS)
    sandbox.start_job("w9qmlp5475")
    sandbox.fault("POST", "/jobs/start", drop="before")

    job = hook.start_job(BOOKS, newer_than=newest)

    assert job.agent_id == BOOKS
    assert sandbox.started_jobs == [job.job_id]


def test_an_older_job_is_not_adopted(sandbox: Sandbox, hook: AgentyHook) -> None:
    older = sandbox.start_job(BOOKS)
    sandbox.fault("POST", "/jobs/start", drop="before")

    job = hook.start_job(BOOKS)

    assert job.job_id != older
    assert posts(sandbox) == 2


@pytest.mark.agenty_sandbox(page_cap=2)
def test_ones_own_job_is_found_beyond_the_first_page(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.add_older_jobs(BOOKS, 3)
    newest = hook.newest_job_id(BOOKS)
    held = sandbox.fault("POST", "/jobs/start", hold="after", drop="after")

    def go_on_with_scheduled_jobs() -> None:
        held.wait()
        for _ in range(5):
            sandbox.start_job(BOOKS, is_scheduled=True)
        held.release()

    # What is held after it was acted on has been started: the scheduler's jobs are newer than it.
    thread = threading.Thread(target=go_on_with_scheduled_jobs)
    thread.start()
    job = hook.start_job(BOOKS, newer_than=newest)
    thread.join()

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1


def test_with_several_new_jobs_nothing_more_is_started_and_all_are_named(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = hook.newest_job_id(BOOKS)
    other = sandbox.start_job(BOOKS)
    sandbox.fault("POST", "/jobs/start", drop="after")

    with pytest.raises(AgentyAmbiguousStartError) as raised:
        hook.start_job(BOOKS, newer_than=newest)

    [mine] = sandbox.started_jobs
    assert raised.value.candidates == (mine, other)
    assert raised.value.agent_id == BOOKS
    assert all(said in str(raised.value) for said in (BOOKS, str(mine), str(other), "Nothing more was started"))
    assert posts(sandbox) == 1


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": "before"}, {"body": "<html>"}, {"status": 401}])
def test_where_the_list_cannot_be_read_afterwards_nothing_more_is_started(
    sandbox: Sandbox, hook: AgentyHook, fault: dict[str, Any]
) -> None:
    sandbox.fault("GET", "/jobs", times=None, after=1, **fault)
    sandbox.fault("POST", "/jobs/start", drop="after")

    with pytest.raises(AgentyAmbiguousStartError, match=f"not known.*agent {BOOKS}.*could not be read"):
        hook.start_job(BOOKS)

    assert sandbox.starts == 1
    assert posts(sandbox) == 1


def test_a_start_that_was_accepted_without_a_job_is_never_sent_again(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", body={"message": "OK"}, times=None)

    with pytest.raises(AgentyAmbiguousStartError, match=r"not known.*shows no new one.*look in Agenty"):
        hook.start_job(BOOKS)

    assert posts(sandbox) == 1
    assert sandbox.starts == 0


def test_an_ambiguous_start_is_not_mended_by_a_retry() -> None:
    from airflow_provider_agenty.airflow_compat import AirflowFailException

    assert issubclass(AgentyAmbiguousStartError, AirflowFailException)


def test_a_job_is_found_that_a_start_before_has_made(sandbox: Sandbox, hook: AgentyHook) -> None:
    newest = hook.newest_job_id(BOOKS)
    started = sandbox.start_job(BOOKS)

    found = hook.find_started_job(BOOKS, newer_than=newest)

    assert found is not None
    assert found.job_id == started
    assert hook.find_started_job(BOOKS, newer_than=started) is None
    assert posts(sandbox) == 0


def test_what_happens_to_a_lost_start_is_told_without_the_key(
    sandbox: Sandbox, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.fault("POST", "/jobs/start", drop="before")
    sandbox.fault("POST", "/jobs/start", drop="after", after=1)

    job = connect({"auth": "query"}).start_job(BOOKS)

    assert "Checking whether the job was started all the same" in caplog.text
    assert "Sending it again" in caplog.text
    assert f"Job {job.job_id} of agent {BOOKS} is taken as the one that was started: its answer was lost" in caplog.text
    assert sandbox.key not in caplog.text


def test_the_policy_looks_over_some_seconds() -> None:
    policy = start_job.StartPolicy()

    waited = sum(policy.first_wait * 2**number for number in range(policy.lookups - 1))
    assert policy.attempts >= 2
    assert 3 <= waited <= 30


def test_many_starts_at_once_are_that_many_jobs(sandbox: Sandbox, hook: AgentyHook) -> None:
    started: list[int] = []
    threads = [threading.Thread(target=lambda: started.append(hook.start_job(BOOKS).job_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(started) == sorted(sandbox.started_jobs)
    assert len(set(started)) == 8


# A list of jobs that is not as it should be


@dataclass
class Lister:
    """An Agenty that lists jobs as it is told, and starts one without giving its answer."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    """In the order in which they are listed."""

    most_rows: int = 1000
    clock_ahead: timedelta = timedelta(0)
    date: str | None = None
    ignores_offset: bool = False
    total: int | None = None
    answer_to_start: bytes = b""
    headers_of_start: dict[str, str] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)
    lists: int = 0
    url: str = ""
    order: Callable[[list[dict[str, Any]]], None] = lambda jobs: jobs.sort(key=lambda job: -job["job_id"])

    def add(self, *job_ids: int, **fields: Any) -> None:
        for job_id in job_ids:
            created = datetime.now(UTC) + self.clock_ahead
            job = {"job_id": job_id, "agent_id": BOOKS, "status": "running", "is_scheduled": False}
            self.jobs.append({**job, "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"), **fields})
        self.order(self.jobs)

    def start(self) -> None:
        self.started.append(max((job["job_id"] for job in self.jobs), default=0) + 1)
        self.add(self.started[-1])

    def page(self, offset: int, limit: int) -> dict[str, Any]:
        self.lists += 1
        begin = 0 if self.ignores_offset else offset
        rows = self.jobs[begin : begin + min(limit, self.most_rows)]
        total = len(self.jobs) if self.total is None else self.total
        return {"total": total, "limit": limit, "offset": offset, "returned": len(rows), "result": rows}


@pytest.fixture
def lister() -> Iterator[Lister]:
    agenty = Lister()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            body = json.dumps(agenty.page(int(query["offset"][0]), int(query["limit"][0]))).encode()
            self.answer(body, {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            agenty.start()
            if agenty.answer_to_start or agenty.headers_of_start:
                self.answer(agenty.answer_to_start, agenty.headers_of_start)

        def answer(self, body: bytes, headers: dict[str, str]) -> None:
            now = datetime.now(UTC) + agenty.clock_ahead
            self.send_response_only(200)
            date = agenty.date if agenty.date is not None else format_datetime(now, usegmt=True)
            for name, value in {"Content-Length": str(len(body)), "Date": date, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as agenty.url:
        yield agenty


def oldest_first(jobs: list[dict[str, Any]]) -> None:
    jobs.sort(key=lambda job: job["job_id"])


def in_no_order(jobs: list[dict[str, Any]]) -> None:
    jobs.sort(key=lambda job: job["job_id"] * 7919 % 1009)


def by_state(jobs: list[dict[str, Any]]) -> None:
    jobs.sort(key=lambda job: (job["status"], -job["job_id"]))


ORDERS = [oldest_first, in_no_order, by_state]


@pytest.mark.parametrize(
    ("order", "most_rows"),
    [(oldest_first, 1), (oldest_first, 7), (in_no_order, 1), (in_no_order, 7), *((order, 1000) for order in ORDERS)],
)
def test_the_newest_job_is_found_in_a_list_in_another_order(
    lister: Lister, connect: Any, order: Callable[[Any], None], most_rows: int
) -> None:
    lister.order, lister.most_rows = order, most_rows
    lister.add(*range(1, 12), status="completed")
    lister.add(12)

    assert connect(host=lister.url).newest_job_id(BOOKS) == 12


@pytest.mark.parametrize("older_jobs", [1, 150])
@pytest.mark.parametrize("order", ORDERS)
def test_a_lost_start_is_found_in_a_list_in_another_order(
    lister: Lister, connect: Any, order: Callable[[Any], None], older_jobs: int
) -> None:
    lister.order = order
    lister.add(*range(1, older_jobs + 1), status="completed")

    job = connect(host=lister.url).start_job(BOOKS)

    assert lister.started == [job.job_id]


@pytest.mark.parametrize("order", ORDERS)
def test_an_active_job_is_found_in_a_list_in_another_order(
    lister: Lister, connect: Any, order: Callable[[Any], None]
) -> None:
    lister.order, lister.most_rows = order, 5
    lister.add(*range(1, 20), status="completed", created_at="2026-01-01T00:00:00Z")
    lister.add(20)

    found = job_of_run(connect(host=lister.url), datetime.now(UTC))

    assert found is not None
    assert found.job_id == 20


def test_a_list_that_is_newest_first_is_not_read_on(lister: Lister, connect: Any) -> None:
    lister.add(*range(1, 5000), status="completed", created_at="2026-01-01T00:00:00Z")
    lister.add(5000)
    hook = connect(host=lister.url)

    assert hook.newest_job_id(BOOKS) == 5000
    assert hook.find_started_job(BOOKS, newer_than=4999).job_id == 5000
    assert job_of_run(hook, datetime.now(UTC)).job_id == 5000
    assert lister.lists == 3


def test_a_list_in_small_pages_is_read_as_far_as_it_shows_its_order(lister: Lister, connect: Any) -> None:
    lister.most_rows = 2
    lister.add(*range(1, 100), status="completed", created_at="2026-01-01T00:00:00Z")
    lister.add(100)
    hook = connect(host=lister.url)

    assert hook.newest_job_id(BOOKS) == 100
    assert lister.lists == 1
    assert hook.find_started_job(BOOKS, newer_than=99).job_id == 100
    assert job_of_run(hook, datetime.now(UTC)).job_id == 100


# Pages of new jobs without end; the same page again and again; pages that end before what they name.
ENDLESS: dict[str, dict[str, Any]] = {
    "too long": {"most_rows": 2},
    "offset ignored": {"ignores_offset": True, "most_rows": 10},
    "ends early": {"total": 10**9},
}


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_list_without_an_end_means_that_it_cannot_be_told_and_not_a_second_start(
    lister: Lister, connect: Any, endless: str
) -> None:
    lister.add(*range(1, 300), is_scheduled=True)
    hook = connect(host=lister.url)
    for name, value in ENDLESS[endless].items():
        setattr(lister, name, value)

    with pytest.raises(
        AgentyAmbiguousStartError,
        match=r"not known.*: its answer was lost, and .* list of its jobs",
    ):
        hook.start_job(BOOKS, newer_than=0)
    assert len(lister.started) == 1
    assert lister.lists <= start_job.MAX_PAGES

    with pytest.raises(AgentyAmbiguousStartError, match=r"The jobs of agent 45l0wewqzk could not be listed"):
        job_of_run(hook, datetime.now(UTC) - timedelta(hours=1))


def test_where_the_newest_job_cannot_be_told_nothing_is_started(lister: Lister, connect: Any) -> None:
    lister.order, lister.most_rows = oldest_first, 2
    lister.add(*range(1, 100))

    with pytest.raises(AgentyError, match=r"newest job of agent 45l0wewqzk could not be found.*Nothing was started"):
        connect(host=lister.url).start_job(BOOKS)
    assert lister.started == []


def test_jobs_of_other_agents_do_not_count_where_agenty_lists_them_all(lister: Lister, connect: Any) -> None:
    lister.add(1, 2, agent_id="another1")
    hook = connect(host=lister.url)

    assert hook.find_started_job(BOOKS, newer_than=0) is None
    assert job_of_run(hook, datetime.now(UTC)) is None


def test_a_job_without_a_time_is_not_lost(lister: Lister, connect: Any) -> None:
    lister.add(1, created_at=None)
    lister.add(2, created_at="2026-01-01T00:00:00Z")
    lister.add(3, created_at=None)

    found = job_of_run(connect(host=lister.url), datetime.now(UTC))

    assert found is not None
    assert found.job_id == 3


def test_a_job_in_a_state_that_is_not_known_may_go_on(lister: Lister, connect: Any) -> None:
    lister.add(1, status="warming_up")

    assert job_of_run(connect(host=lister.url), datetime.now(UTC)).job_id == 1


# The clocks


@pytest.mark.parametrize("ahead", [0, 90, -90, 7200, -7200])
def test_an_active_job_is_found_by_agentys_clock(lister: Lister, connect: Any, ahead: int) -> None:
    lister.clock_ahead = timedelta(seconds=ahead)
    of_before = datetime.now(UTC) + lister.clock_ahead - timedelta(seconds=30)
    lister.add(1, created_at=of_before.strftime("%Y-%m-%dT%H:%M:%SZ"))
    hook = connect(host=lister.url)

    assert job_of_run(hook, datetime.now(UTC)) is None
    lister.add(2)
    assert job_of_run(hook, datetime.now(UTC)).job_id == 2


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Fri, 32 Nov 2026 09:00:00 GMT",
        "Fri, 27 Nov 2026 09:00:00 +999999999999999999",
        "9" * 5000,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ],
)
def test_a_date_that_is_none_changes_nothing(lister: Lister, connect: Any, date: str) -> None:
    lister.date = date
    lister.add(1, created_at="2026-01-01T00:00:00Z")
    lister.add(2)

    assert job_of_run(connect(host=lister.url), datetime.now(UTC)).job_id == 2


# The answer to a start


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[" * 200_000, {}),
        (b'{"job_id": 1e999, "status": "queued"}', {}),
        (b'{"job_id": 1, "status": "\xff"}', {}),
        (b'{"job_id": NaN, "status": "queued"}', {}),
        (b"not gzip", {"Content-Encoding": "gzip"}),
        (b"{}", {"Content-Length": "9" * 5000}),
        (b"{}", {"Location": "/\xff"}),
    ],
    ids=["deep", "infinite", "no utf-8", "no number", "no gzip", "no length", "odd place"],
)
def test_whatever_is_wrong_with_the_answer_to_a_start_its_job_is_looked_for(
    lister: Lister, connect: Any, body: bytes, headers: dict[str, str]
) -> None:
    lister.answer_to_start, lister.headers_of_start = body, headers

    job = connect({"timeout": {"read": 2}}, host=lister.url).start_job(BOOKS)

    assert lister.started == [job.job_id]


# What is said


@pytest.mark.agenty_sandbox(manual=True)
def test_the_message_says_what_happened(sandbox: Sandbox, hook: AgentyHook, caplog: pytest.LogCaptureFixture) -> None:
    began = datetime.now(UTC)
    sandbox.start_job(BOOKS)

    assert hook.find_started_job(BOOKS, newer_than=0) is not None
    assert "an earlier try was about to start it and ended before it knew the job" in caplog.text
    assert job_of_run(hook, began) is not None
    assert "was made since this run began and still goes on" in caplog.text
    sandbox.start_job(BOOKS)
    with pytest.raises(AgentyAmbiguousStartError, match="not known which of them this start made: an earlier try"):
        hook.find_started_job(BOOKS, newer_than=0)
    with pytest.raises(AgentyAmbiguousStartError, match="2 jobs that were made since this run began and still go on"):
        job_of_run(hook, began)
    assert "lost" not in caplog.text
