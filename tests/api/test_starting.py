from __future__ import annotations

import threading
from typing import Any

import pytest

from airflow_provider_agenty.api import starting
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
READ_TIMEOUT = 0.3

LOST = {
    "dropped": {"drop": "after"},
    "reset": {"drop": "after", "reset": True},
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
    "truncated": {"truncate": 20},
    "redirect": {"status": 303, "redirect": "/v2/jobs", "acted": True},
    "redirect of the method too": {"status": 307, "redirect": "/v2/jobs/start", "acted": True},
}
NOT_ARRIVED = {
    "dropped": {"drop": "before"},
    "reset": {"drop": "before", "reset": True},
    "500": {"status": 500},
    "502": {"status": 502},
    "503": {"status": 503},
    "504": {"status": 504},
}


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
    assert sandbox.requests[0].query == {"agent_id": BOOKS, "limit": "1", "offset": "0"}
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
    sandbox.fault("POST", "/jobs/start", **LOST[lost])  # type: ignore[arg-type]

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 1


@pytest.mark.parametrize("lost", NOT_ARRIVED)
def test_a_start_that_did_not_arrive_is_sent_again(sandbox: Sandbox, hook: AgentyHook, lost: str) -> None:
    sandbox.add_older_jobs(BOOKS, 2)
    sandbox.fault("POST", "/jobs/start", **NOT_ARRIVED[lost])  # type: ignore[arg-type]

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]
    assert posts(sandbox) == 2
    assert lists(sandbox) == 1 + starting.POLICY.looks


def test_a_start_that_never_arrives_is_sent_a_bounded_number_of_times(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", status=503, times=None)

    with pytest.raises(AgentyUnavailableError, match="POST /jobs/start: HTTP 503"):
        hook.start_job(BOOKS)

    assert posts(sandbox) == starting.POLICY.attempts
    assert sandbox.starts == 0


def test_a_job_that_is_listed_late_is_found_by_looking_again(
    sandbox: Sandbox, hook: AgentyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "POLICY", starting.StartPolicy(attempts=3, looks=4, first_wait=0.01))
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

    with pytest.raises(AgentyAmbiguousStartError, match=f"agent {BOOKS}.*not known.*could not be read"):
        hook.start_job(BOOKS)

    assert sandbox.starts == 1
    assert posts(sandbox) == 1


def test_a_start_that_was_accepted_without_a_job_is_never_sent_again(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", body={"message": "OK"}, times=None)

    with pytest.raises(AgentyAmbiguousStartError, match=r"not known.*shows no new one.*Look in Agenty"):
        hook.start_job(BOOKS)

    assert posts(sandbox) == 1
    assert sandbox.starts == 0


def test_an_ambiguous_start_is_not_mended_by_a_retry() -> None:
    from airflow_provider_agenty.compat import AirflowFailException

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

    assert "Looking whether the job was started all the same" in caplog.text
    assert "Sending it again" in caplog.text
    assert f"Job {job.job_id} of agent {BOOKS} is taken for the one whose answer was lost" in caplog.text
    assert sandbox.key not in caplog.text


def test_the_policy_looks_over_some_seconds() -> None:
    policy = starting.StartPolicy()

    waited = sum(policy.first_wait * 2**look for look in range(policy.looks - 1))
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
