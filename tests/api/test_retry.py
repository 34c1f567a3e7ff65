from __future__ import annotations

import dataclasses
import itertools
import time
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from airflow_provider_agenty.api.retry import RetryPolicy
from airflow_provider_agenty.api.validation import read_retry_after
from airflow_provider_agenty.exceptions import (
    AgentyError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Fault, Sandbox
from tests.sandbox_faults import Reset

NOW = datetime(2026, 1, 10, 12, 0, 0, tzinfo=UTC)


def unavailable(**values: Any) -> AgentyUnavailableError:
    return AgentyUnavailableError("not now", **{"kind": "status", "acted_on": True, **values})


def failing(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> RetryPolicy:
    """Give the policy as it is outside of tests, and let hooks have it."""
    defaults = tuple(getattr(RetryPolicy, field.name) for field in dataclasses.fields(RetryPolicy))
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", defaults)
    return RetryPolicy()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let time pass by waiting alone; give the waits."""
    waits: list[float] = []
    namespace = types.SimpleNamespace(
        sleep=waits.append, monotonic=lambda: sum(waits), time=time.time, perf_counter=time.perf_counter
    )
    monkeypatch.setattr("tenacity.nap.time", namespace)
    monkeypatch.setattr("tenacity.time", namespace)
    return waits


# Which calls are made again


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 599])
def test_a_read_is_repeated_while_agenty_is_not_there(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, status: int
) -> None:
    sandbox.fault("GET", "/jobs/{id}", status=status, times=2)

    assert hook.get_job(finished_job).job_id == finished_job
    assert len(sandbox.requests) == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, AgentyRequestError),
        (404, AgentyNotFoundError),
        (405, AgentyRequestError),
        (409, AgentyRequestError),
        (422, AgentyRequestError),
        (501, AgentyUnavailableError),
    ],
)
def test_a_read_is_not_repeated_where_that_changes_nothing(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, status: int, expected: type[AgentyError]
) -> None:
    sandbox.fault("GET", "/jobs/{id}", status=status, times=None)

    with pytest.raises(expected, match=f"GET /jobs/{finished_job}: HTTP {status}"):
        hook.get_job(finished_job)

    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_read_is_repeated_when_the_connection_breaks(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, moment: str, reset: bool
) -> None:
    sandbox.add_fault((Reset if reset else Fault)("GET", "/jobs/{id}", drop=moment, times=2))

    assert hook.get_job(finished_job).job_id == finished_job
    assert len(sandbox.requests) == 3


def test_a_read_is_repeated_when_the_answer_is_cut(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.fault("GET", "/jobs/{id}", cut=20)

    assert hook.get_job(finished_job).job_id == finished_job
    assert len(sandbox.requests) == 2


def test_a_read_is_repeated_when_the_answer_does_not_come_in_time(
    sandbox: Sandbox, connect: Any, finished_job: int
) -> None:
    held = sandbox.fault("GET", "/jobs/{id}", hold="before")

    job = connect({"timeout": {"read": 0.5}}).get_job(finished_job)

    assert job.job_id == finished_job
    assert len(sandbox.requests) == 2
    held.release()


def test_a_read_is_repeated_when_the_connection_is_refused(connect: Any, closed_port: int, slept: list[float]) -> None:
    with pytest.raises(AgentyUnavailableError, match=r"127\.0\.0\.1 refused the connection"):
        connect(host=f"http://127.0.0.1:{closed_port}").get_job(7)

    assert len(slept) == 4


@pytest.mark.parametrize("attempts", [1, 2, 3, 7])
def test_max_attempts_of_the_connection_counts_the_first_try(sandbox: Sandbox, connect: Any, attempts: int) -> None:
    sandbox.fault("GET", "/jobs/{id}", status=503, times=None)

    with pytest.raises(AgentyUnavailableError, match="GET /jobs/7: HTTP 503 Service Unavailable"):
        connect({"max_attempts": attempts}).get_job(7)

    assert len(sandbox.requests) == attempts


def test_attempts_are_told_in_the_log_without_the_key(
    sandbox: Sandbox, connect: Any, finished_job: int, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.fault("GET", "/jobs/{id}", status=503)
    connect({"auth": "query"}).get_job(finished_job)

    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "HTTP 503" in warning.getMessage()
    assert "attempt 1" in warning.getMessage()
    assert sandbox.key not in caplog.text


@pytest.mark.parametrize("error", [AgentyNotFoundError("gone"), KeyError("x"), unavailable()])
def test_what_is_not_to_be_repeated_is_raised_as_it_is(
    policy: RetryPolicy, slept: list[float], error: Exception
) -> None:
    with pytest.raises(type(error)) as raised:
        policy.call(failing(error), again_if=lambda _: False)

    assert raised.value is error
    assert slept == []


# How long is waited


def test_waits_have_full_jitter_below_a_limit_that_doubles(policy: RetryPolicy) -> None:
    waits: list[list[float]] = []
    for _ in range(300):
        waits.append([])
        with pytest.raises(AgentyUnavailableError):
            RetryPolicy(max_attempts=8, first_wait=1.0, longest_wait=30.0, total=10_000.0).call(
                failing(unavailable()), again_if=lambda _: True, sleep=waits[-1].append
            )

    for limit, seconds in zip((1, 2, 4, 8, 16, 30, 30), zip(*waits, strict=True), strict=True):
        assert min(seconds) >= 0.0
        assert max(seconds) <= limit
        # Full jitter: from next to nothing up to next to all of it.
        assert min(seconds) < 0.1 * limit
        assert max(seconds) > 0.9 * limit


def test_the_policy_is_as_documented(policy: RetryPolicy) -> None:
    assert policy.max_attempts == 5
    assert policy.first_wait == 1.0
    assert policy.longest_wait == 30.0
    assert policy.longest_asked_wait == 120.0
    assert policy.total == 600.0


@pytest.mark.parametrize("asked", [0, 3, 90])
def test_a_wait_is_as_long_as_agenty_asks(policy: RetryPolicy, slept: list[float], asked: int) -> None:
    calls = itertools.count()

    def call() -> str:
        if next(calls) == 0:
            raise unavailable(retry_after=float(asked))
        return "done"

    assert policy.call(call, again_if=lambda _: True) == "done"
    assert asked <= slept[0] <= asked + 1


def test_no_wait_is_longer_than_the_limit_whatever_agenty_asks(policy: RetryPolicy, slept: list[float]) -> None:
    with pytest.raises(AgentyUnavailableError):
        policy.call(failing(unavailable(retry_after=86_400.0)), again_if=lambda _: True)

    assert slept
    assert max(slept) <= policy.longest_asked_wait + 1


def test_attempts_end_after_the_total_time(policy: RetryPolicy, clock: list[float]) -> None:
    calls: list[float] = []

    def call() -> None:
        calls.append(sum(clock))
        raise unavailable(retry_after=100.0)

    with pytest.raises(AgentyUnavailableError):
        RetryPolicy(max_attempts=50, first_wait=1.0, longest_asked_wait=120.0, total=350.0).call(
            call, again_if=lambda _: True
        )

    assert len(calls) == 4
    assert calls[-1] <= 350.0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured(
    sandbox: Sandbox, connect: Any, finished_job: int, slept: list[float], policy: RetryPolicy, status: int
) -> None:
    sandbox.fault("GET", "/jobs/{id}", status=status, headers={"Retry-After": "7"})
    hook = connect()
    hook.get_job(finished_job)

    assert len(slept) == 1
    assert 7 <= slept[0] <= 8


def test_retry_after_as_a_date_is_honoured(
    sandbox: Sandbox, connect: Any, finished_job: int, slept: list[float], policy: RetryPolicy
) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    sandbox.fault("GET", "/jobs/{id}", status=429, headers={"Retry-After": until})
    hook = connect()
    hook.get_job(finished_job)

    assert 30 < slept[0] <= 61


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("Sat, 10 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 10 Jan 2026 12:00:30", 30.0),
        ("Saturday, 10-Jan-26 12:00:30 GMT", 30.0),
        ("Sat, 10 Jan 2026 14:00:30 +0200", 30.0),
        ("Sat, 10 Jan 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Sat, 99 Jan 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value: str | None, expected: float | None) -> None:
    assert read_retry_after(value, now=NOW) == expected


def test_a_retry_after_of_any_length_is_a_number() -> None:
    seconds = read_retry_after("9" * 5000)

    assert seconds is not None
    assert seconds > 120
