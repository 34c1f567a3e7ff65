"""
Airflow's metrics of jobs: over StatsD, Datadog or OpenTelemetry, as ``[metrics]`` in its configuration says.

A metric that can't be sent costs a line at debug level, never the task.
"""

from __future__ import annotations

import logging
import socket
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_agenty import airflow_compat

if TYPE_CHECKING:
    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.landing.land import ExportedFile

JOBS_STARTED = "agenty.jobs.started"
JOBS_JOINED = "agenty.jobs.joined"
JOBS_REUSED = "agenty.jobs.reused"
JOBS_REATTACHED = "agenty.jobs.reattached"
JOBS_STOPPED = "agenty.jobs.stopped"
JOBS_ENDED = "agenty.jobs.ended"
"""The name without the job's state: StatsD has no tags, so the state is in the name."""
JOBS_CREDITS = "agenty.jobs.credits"
JOBS_DURATION = "agenty.jobs.duration"
JOBS_QUEUE_TIME = "agenty.jobs.queue_time"
LANDED_FILES = "agenty.landing.files"
LANDED_ROWS = "agenty.landing.rows"
LANDED_BYTES = "agenty.landing.bytes"
LANDING_DURATION = "agenty.landing.duration"
POLLER_POLLS = "agenty.poller.polls"
POLLER_REQUESTS = "agenty.poller.requests"
POLLER_FAILURES = "agenty.poller.failures"
POLLER_WAITERS = "agenty.poller.waiters"

log = logging.getLogger(__name__)


def count(name: str, value: int | None = 1, /, **tags: str | None) -> None:
    """Add to a counter; nothing where the value is not known."""
    if value is not None:
        _send("incr", name, value, tags)


def time(name: str, duration: timedelta | None, /, **tags: str | None) -> None:
    """Tell a duration; nothing where it is not known."""
    if duration is not None:
        # As a number: Airflow 2's OpenTelemetry takes a timedelta for seconds, all others for milliseconds.
        _send("timing", name, duration / timedelta(milliseconds=1), tags)


def gauge(name: str, value: int, /, **tags: str | None) -> None:
    """Tell how many there are in this process."""
    _send("gauge", name, value, {**tags, "hostname": socket.gethostname()})


def count_end(job: Job, conn_id: str) -> None:
    """Count a job whose end a task has seen; nothing while it goes on."""
    if job.is_terminal:
        tags = {"agent_id": job.agent_id, "conn_id": conn_id}
        count(f"{JOBS_ENDED}.{job.status}", **tags)
        count(JOBS_CREDITS, job.pages_credit, **tags)
        # Agenty leaves both out of many answers, and gives the times.
        time(JOBS_DURATION, job.run_duration or _between(job.started_at, job.completed_at or job.stopped_at), **tags)
        time(JOBS_QUEUE_TIME, job.queue_time or _between(job.created_at, job.started_at), **tags)


def _between(begin: datetime | None, end: datetime | None) -> timedelta | None:
    return None if begin is None or end is None else end - begin


def count_landed(exported: ExportedFile, seconds: float, *, agent_id: str | None, conn_id: str) -> None:
    """Count a file that was landed."""
    tags = {"agent_id": agent_id, "conn_id": conn_id}
    count(LANDED_FILES, **tags)
    count(LANDED_ROWS, exported.rows, **tags)
    count(LANDED_BYTES, exported.size, **tags)
    time(LANDING_DURATION, timedelta(seconds=seconds), **tags)


def _send(method: str, name: str, value: float, tags: dict[str, str | None]) -> None:
    try:
        stats = airflow_compat.stats()
        if stats is not None:
            getattr(stats, method)(name, value, tags={tag: text for tag, text in tags.items() if text})
    except Exception as error:
        log.debug("The metric %s was not sent: %s", name, error)
