"""How Agenty puts things: the job object in its varieties, and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty.sandbox.account import ACCOUNT_ID
from airflow_provider_agenty.sandbox.job import clock_time, seven_digits, whole_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_agenty.sandbox.job import Job


class ApiError(Exception):
    """
    An answer that is an error.

    :param status: the HTTP status.
    :param message: what Agenty says is wrong.
    :param details: further sentences.
    """

    def __init__(self, status: int, message: str, *details: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"status_code": status, "message": message}
        if details:
            self.body["details"] = [{"error_message": detail} for detail in details]


def bad_parameter(detail: str) -> ApiError:
    """Return the error for a parameter that cannot be used."""
    return ApiError(400, "Validation failed", detail)


def job_status(job: Job, now: float) -> dict[str, Any]:
    """Return the job object as ``GET /jobs/{id}`` gives it."""
    figures = job.page_figures(now)
    answer: dict[str, Any] = {
        "job_id": job.job_id,
        "account_id": ACCOUNT_ID,
        "agent_id": job.agent.agent_id,
        "type": job.agent.type,
        "status": job.status(now),
        "priority": job.priority,
        **figures,
        "created_at": whole_seconds(job.created_at),
        "started_at": whole_seconds(job.since("started", now)),
        "completed_at": whole_seconds(job.finished_at(now)),
        "stopped_at": whole_seconds(job.since("stopped", now)),
        "is_scheduled": job.is_scheduled,
        "queue_time": None,
        "run_duration": None,
        "error": job.error(now),
        "ping_at": None,
        "assigned_worker_id": None,
        "running_worker_id": 3 if job.since("started", now) is not None else None,
    }
    return answer | job.fields


def job_started(job: Job, now: float) -> dict[str, Any]:
    """Return the job object as ``POST /jobs/start`` gives it: ``created_at`` with seven digits."""
    return job_status(job, now) | {"created_at": seven_digits(job.created_at), "running_worker_id": 1}


def job_stopped(job: Job, now: float) -> dict[str, Any]:
    """Return the job object as ``GET /jobs/{id}/stop`` gives it: what the stop set has seven digits."""
    answer = job_status(job, now)
    if answer["status"] == "stopped":
        answer["completed_at"] = seven_digits(job.finished_at(now))
        answer["stopped_at"] = seven_digits(job.since("stopped", now))
    return answer


def job_listed(job: Job, now: float) -> dict[str, Any]:
    """Return the job object as ``GET /jobs`` gives it: with its durations, without its worker."""
    answer: dict[str, Any] = job_status(job, now) | {"running_worker_id": None}
    started, ended = job.since("started", now), job.finished_at(now)
    if started is not None:
        answer["queue_time"] = clock_time(int(started) - int(job.created_at))
        if ended is not None:
            answer["run_duration"] = clock_time(int(ended) - int(started))
    return answer | job.fields


def to_json(body: Any) -> bytes:
    """Return JSON in UTF-8; half of an emoji, which UTF-8 does not have, as the escape that it is."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def to_text(lines: Iterable[str]) -> bytes:
    """Return lines in UTF-8; half of an emoji as the bytes that it would have, which no reader takes for text."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
