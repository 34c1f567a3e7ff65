from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyError,
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
    AgentyNotFoundError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"


def polls(sandbox: Sandbox) -> int:
    return sum(request.path.count("/") == 2 for request in sandbox.requests)


def wait(hook: AgentyHook, job_id: int, **options: Any) -> Any:
    return hook.wait_for_job(job_id, **{"poll_interval": 0.01, "timeout": 60, **options})


# How it ends


def test_a_job_is_waited_for_until_it_is_completed(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.script(["submitted", "queued", "started", "running", "completing", "completed"])
    job_id = sandbox.start_job(BOOKS)

    job = wait(hook, job_id)

    assert (job.job_id, job.status) == (job_id, "completed")
    assert polls(sandbox) == 6
    assert len(sandbox.requests) == 6


def test_a_job_that_is_over_is_asked_for_once(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    assert wait(hook, finished_job, poll_interval=1000).is_successful
    assert len(sandbox.requests) == 1


def test_a_job_id_may_be_text(hook: AgentyHook, finished_job: int) -> None:
    assert wait(hook, str(finished_job)).job_id == finished_job  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["aborted", "failed"])
def test_an_aborted_job_is_an_error_with_agentys_reason_and_the_end_of_its_log(
    sandbox: Sandbox, hook: AgentyHook, status: str
) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, status, error="Not enough page credits")
    sandbox.add_log(job_id, "the last thing that happened", level="ERROR")

    with pytest.raises(AgentyJobFailedError, match=f"Job {job_id} was {status}: Not enough page credits") as raised:
        wait(hook, job_id)

    assert raised.value.job.job_id == job_id
    assert raised.value.log_entries[-1].message == "the last thing that happened"
    assert raised.value.log_entries[-1].level == "ERROR"
    assert len(raised.value.log_entries) <= 50


def test_an_aborted_job_whose_log_cannot_be_read_is_the_same_error(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, "aborted", error=None)
    sandbox.fault("GET", "/jobs/{id}/logs", status=500, times=None)

    with pytest.raises(AgentyJobFailedError, match="gives no reason") as raised:
        wait(hook, job_id)

    assert raised.value.log_entries == ()


def test_a_stopped_job_is_an_error_of_its_own(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, "stopping")
    stopper = threading.Timer(0.05, lambda: sandbox.set_status(job_id, "stopped"))
    stopper.start()

    with pytest.raises(AgentyJobStoppedError, match=f"Job {job_id} was stopped") as raised:
        wait(hook, job_id)

    assert raised.value.job.status == "stopped"
    stopper.join()


@pytest.mark.agenty_sandbox(manual=True)
def test_a_job_that_is_not_done_in_time_is_an_error_that_says_how_far_it_is(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, "running", pages_total=120, pages_processed=37)

    with pytest.raises(AgentyTimeoutError, match=rf"Job {job_id} is not done in time.*running: 37/120 pages") as raised:
        wait(hook, job_id, timeout=2)

    assert raised.value.job is not None
    assert raised.value.job.status == "running"
    assert sandbox.stops == 0


def test_the_last_poll_is_at_the_deadline_and_not_an_interval_later(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, "running")

    with pytest.raises(AgentyTimeoutError):
        wait(hook, job_id, timeout=0.1, poll_interval=100_000)

    assert polls(sandbox) <= 2


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_job_that_ends_before_the_last_poll_has_ended(sandbox: Sandbox, hook: AgentyHook, timeout: float) -> None:
    sandbox.script(["running", "completed"] if timeout else ["completed"])
    job_id = sandbox.start_job(BOOKS)

    assert wait(hook, job_id, timeout=timeout, poll_interval=100_000).is_successful


@pytest.mark.parametrize(
    ("ratio", "failed", "fails"), [(None, 10, False), (1.0, 10, False), (0.2, 2, False), (0.1, 2, True), (0, 1, True)]
)
def test_a_completed_job_fails_when_too_many_of_its_pages_have(
    sandbox: Sandbox, hook: AgentyHook, ratio: float | None, failed: int, fails: bool
) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, "completed", pages_total=10, pages_processed=10, pages_failed=failed)

    if not fails:
        assert wait(hook, job_id, max_failed_ratio=ratio).pages_failed == failed
        return
    with pytest.raises(AgentyJobFailedError, match=rf"{failed} of its pages failed \({failed}0%\)") as raised:
        wait(hook, job_id, max_failed_ratio=ratio)
    assert raised.value.job.status == "completed"


def test_an_unknown_state_is_waited_out_and_warned_of_once(
    sandbox: Sandbox, hook: AgentyHook, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.script(["hibernating", "hibernating", "hibernating", "completed"])
    job_id = sandbox.start_job(BOOKS)

    assert wait(hook, job_id).is_successful

    assert polls(sandbox) == 4
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "hibernating" in warnings[0].getMessage()


def test_progress_is_told_on_a_change_of_state_and_not_at_each_poll(
    sandbox: Sandbox, hook: AgentyHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    figures = {"pages_total": 120, "pages_failed": 2, "pages_credit": 35}
    sandbox.script(
        [
            "submitted",
            {"status": "running", "pages_processed": 37, **figures},
            {"status": "running", "pages_processed": 38, **figures},
            {"status": "running", "pages_processed": 80, **figures},
            "completed",
        ]
    )
    wait(hook, sandbox.start_job(BOOKS))

    told = [record.getMessage() for record in caplog.records if " is " in record.getMessage()]
    assert len(told) == 3
    assert "running: 37/120 pages (31 %), 2 failed, 35 credits" in told[1]


# Trouble on the way


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429}, {"drop": "after"}, {"body": "<html>"}, {"body": '{"job_id":'}], ids=str
)
def test_trouble_that_passes_is_waited_out(
    sandbox: Sandbox, connect: Any, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.script(["running", "running", "completed"])
    job_id = sandbox.start_job(BOOKS)
    sandbox.fault("GET", "/jobs/{id}", after=1, times=4, **fault)

    assert wait(connect({"max_attempts": 1}), job_id).is_successful
    assert caplog.text.count("could not be polled, trying again") == 4


@pytest.mark.parametrize(
    ("status", "expected"), [(401, AgentyAuthError), (403, AgentyAuthError), (404, AgentyNotFoundError)]
)
def test_trouble_that_does_not_pass_ends_it_at_once(
    sandbox: Sandbox, hook: AgentyHook, status: int, expected: type[AgentyError]
) -> None:
    sandbox.script(["running", "running", "completed"])
    job_id = sandbox.start_job(BOOKS)
    sandbox.fault("GET", "/jobs/{id}", after=1, times=None, status=status)

    with pytest.raises(expected, match=f"Waiting for job {job_id} ended"):
        wait(hook, job_id)

    assert polls(sandbox) == 2


def test_a_deadline_ends_it_also_while_there_is_trouble(sandbox: Sandbox, connect: Any) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.fault("GET", "/jobs/{id}", times=None, status=503)

    with pytest.raises(AgentyTimeoutError, match="no poll was answered"):
        wait(connect({"max_attempts": 1}), job_id, timeout=0.1)


def test_what_is_no_job_id_is_refused_before_anything_is_sent(sandbox: Sandbox, hook: AgentyHook) -> None:
    with pytest.raises(AgentyInputError):
        wait(hook, "seven")  # type: ignore[arg-type]

    assert sandbox.requests == []


# Stopping


@pytest.mark.agenty_sandbox(seconds=60)
def test_a_queued_job_is_stopped(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)

    assert hook.stop_job(job_id).status == "stopped"
    assert sandbox.stopped_jobs == [job_id]


@pytest.mark.agenty_sandbox(seconds=0)
def test_a_running_job_may_still_be_stopping_in_the_answer(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.add_older_jobs(BOOKS, 1)[0]
    sandbox.fault("GET", "/jobs/{id}/stop", status=400, body={"job_id": job_id, "status": "stopping"})

    assert hook.stop_job(job_id).status == "stopping"


def test_a_finished_job_stays_as_it_is_when_it_is_stopped(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int
) -> None:
    assert hook.stop_job(finished_job).status == "completed"
    assert len(sandbox.requests) == 1


def test_an_unknown_job_cannot_be_stopped(sandbox: Sandbox, hook: AgentyHook) -> None:
    with pytest.raises(AgentyNotFoundError, match="GET /jobs/7/stop: HTTP 404"):
        hook.stop_job(7)

    assert len(sandbox.requests) == 1


def test_a_stop_that_certainly_did_not_arrive_is_sent_again(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int
) -> None:
    sandbox.fault("GET", "/jobs/{id}/stop", status=429, times=2)

    assert hook.stop_job(finished_job).job_id == finished_job
    assert len(sandbox.requests) == 3
    assert sandbox.stops == 1


@pytest.mark.parametrize("hold", ["before", "after"])
def test_a_stop_whose_answer_does_not_come_in_time_is_not_sent_again(
    sandbox: Sandbox, connect: Any, finished_job: int, hold: str
) -> None:
    held = sandbox.fault("GET", "/jobs/{id}/stop", hold=hold, times=None)

    with pytest.raises(AgentyUnavailableError, match="no answer"):
        connect({"timeout": {"read": 0.2}}).stop_job(finished_job)

    assert len(sandbox.requests) == 1
    held.release()
