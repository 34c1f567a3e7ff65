"""A job: what its states were, are and will be, its log, and the job object, all derived from the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_agenty.sandbox.agent import Agent, Plan

ACCOUNT_ID = 59703
FINISHED = frozenset({"completed", "stopped", "aborted", "failed"})
BEFORE_A_WORKER = frozenset({"submitted", "starting", "queued"})
# The share of a job's time that each state takes; 0.05 for all others. Queued lasts longer where no slot is free.
RUNNING_SHARE, COMPLETING_SHARE, OTHER_SHARE = 0.7, 0.1, 0.05
# A job that a test puts into one of these states has been through those before it.
ON_A_WORKER = ("started", "running", "completing", "completed")
# A job that does not complete breaks off when half of its pages are done.
ABORTED_AT = 0.5
MAX_LOGGED_PAGES = 100_000
MESSAGES = {
    "completing": "Running post-processing scripts...",
    "completed": "Job {} completed successfully",
    "stopping": "Stop request received",
    "stopped": "Job {} stopped",
}


@dataclass(eq=False)
class Job:
    """
    One job of the account, with its agent as that was when the job started.

    ``created_at`` is in seconds since the epoch, and ``seconds`` is how long the job takes from start to end where it
    need not wait for a slot. A ``manual`` job stays in its state until told otherwise.
    """

    job_id: int
    agent: Agent
    plan: Plan
    created_at: float
    seconds: float
    urls: tuple[str, ...] = ()
    is_scheduled: bool = False
    manual: bool = False
    priority: int = 5
    # (when, state), in order of time. Entries in the future are what will happen if nothing interferes.
    history: list[tuple[float, str]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    script: list[dict[str, Any]] = field(default_factory=list)
    extra_log: list[tuple[float, str, str]] = field(default_factory=list)
    # Its progress when it was first held in a state. From then on nothing follows from the time any more.
    _held_progress: float | None = None

    def __post_init__(self) -> None:
        if self.history:
            return
        self.history = [(self.created_at, "submitted")]
        if not self.manual:
            self.history.append((self.created_at + self.seconds * OTHER_SHARE, "starting"))
            self.history.append((self.history[-1][0] + self.seconds * OTHER_SHARE, "queued"))

    @property
    def ready_at(self) -> float:
        """When it may take a slot, at the earliest."""
        return self.history[-1][0] + self.seconds * OTHER_SHARE

    @property
    def ends_at(self) -> float:
        """When the last thing happens that is planned."""
        return self.history[-1][0]

    @property
    def pages(self) -> int:
        """The number of pages that it fetches."""
        return len(self.urls) or self.plan.pages

    def take_slot(self, at: float) -> None:
        """Plan everything from the moment a worker picks it up."""
        running = at + self.seconds * OTHER_SHARE
        self.history += [(at, "started"), (running, "running")]
        if self.plan.outcome != "completed":
            self.history.append((running + self._running_seconds * ABORTED_AT, self.plan.outcome))
            return
        completing = running + self._running_seconds
        self.history.append((completing, "completing"))
        self.history.append((completing + self.seconds * COMPLETING_SHARE, "completed"))

    @property
    def _running_seconds(self) -> float:
        return self.seconds * RUNNING_SHARE

    def status(self, now: float) -> str:
        """Return the state at a moment."""
        return next((status for at, status in reversed(self.history) if at <= now), "submitted")

    def since(self, status: str, now: float) -> float | None:
        """Return when it came into a state, or ``None`` where that has not happened by ``now``."""
        return next((at for at, each in self.history if each == status and at <= now), None)

    def finished_at(self, now: float) -> float | None:
        """Return when it ended, or ``None`` where it has not."""
        at, status = self.history[-1]
        return at if status in FINISHED and at <= now else None

    def stop(self, now: float) -> None:
        """Stop it; nothing happens where it has ended or is about to stop."""
        status = self.status(now)
        if status in FINISHED or status == "stopping":
            return
        # What was to come does not come any more.
        self.script.clear()
        if self.manual:
            self.put("stopped", now, {})
            return
        self.history = [(at, each) for at, each in self.history if at <= now]
        if status in BEFORE_A_WORKER:
            self.history.append((now, "stopped"))
        else:
            self.history.append((now, "stopping"))
            self.history.append((now + self.seconds * OTHER_SHARE, "stopped"))

    def put(self, status: str, now: float, fields: dict[str, Any]) -> None:
        """Hold it in a state from now on."""
        if self._held_progress is None:
            self.extra_log = self._entries(now)
            self._held_progress = self.progress(now)
        self.manual = True
        self.history = [(at, each) for at, each in self.history if at <= now]
        self.fields |= fields
        passed = ON_A_WORKER[: ON_A_WORKER.index(status)] if status in ON_A_WORKER else ()
        steps = [each for each in passed if self.since(each, now) is None]
        if self.status(now) != status:
            steps.append(status)
        for each in steps:
            self.history.append((now, each))
            self.extra_log += self._lines_of(now, each)

    def follow_script(self, now: float) -> None:
        """Take the next step of its script, if it has one."""
        if self.script:
            step = dict(self.script.pop(0))
            self.put(step.pop("status"), now, step)

    def progress(self, now: float) -> float:
        """Return how much of the work is done, 0 to 1."""
        status = self.status(now)
        if status in ("completing", "completed"):
            return 1.0
        if self._held_progress is not None:
            return self._held_progress
        running = self.since("running", now)
        if running is None:
            return 0.0
        left = next((at for at, _ in self.history if at > running), now)
        return min(1.0, (min(now, left) - running) / self._running_seconds) if self._running_seconds else 1.0

    def shown(self, now: float) -> dict[str, Any]:
        """Return the job object as ``GET /jobs/{id}`` gives it."""
        started_at = self.since("started", now)
        answer: dict[str, Any] = {
            "job_id": self.job_id,
            "account_id": ACCOUNT_ID,
            "agent_id": self.agent.agent_id,
            "type": self.agent.type,
            "status": self.status(now),
            "priority": self.priority,
            **self._page_figures(now),
            "created_at": timestamp(self.created_at),
            "started_at": timestamp(started_at),
            "completed_at": timestamp(self.finished_at(now)),
            "stopped_at": timestamp(self.since("stopped", now)),
            "is_scheduled": self.is_scheduled,
            "queue_time": None,
            "run_duration": None,
            "error": self._error(now),
            "ping_at": None,
            "assigned_worker_id": None,
            "running_worker_id": None if started_at is None else 3,
        }
        return answer | self.fields

    def shown_by_start(self) -> dict[str, Any]:
        """Return the job object as ``POST /jobs/start`` gives it: ``created_at`` has seven digits."""
        return self.shown(self.created_at) | {"created_at": timestamp(self.created_at, 7), "running_worker_id": 1}

    def shown_by_stop(self, now: float) -> dict[str, Any]:
        """Return the job object as ``GET /jobs/{id}/stop`` gives it: the times of the stop have seven digits."""
        answer = self.shown(now)
        if answer["status"] == "stopped":
            answer["completed_at"] = timestamp(self.finished_at(now), 7)
            answer["stopped_at"] = timestamp(self.since("stopped", now), 7)
        return answer

    def shown_in_list(self, now: float) -> dict[str, Any]:
        """Return the job object as ``GET /jobs`` gives it: with its durations, without its worker."""
        answer: dict[str, Any] = self.shown(now) | {"running_worker_id": None}
        started, ended = self.since("started", now), self.finished_at(now)
        if started is not None:
            answer["queue_time"] = clock_time(int(started) - int(self.created_at))
            if ended is not None:
                answer["run_duration"] = clock_time(int(ended) - int(started))
        return answer | self.fields

    def _page_figures(self, now: float) -> dict[str, int]:
        total = self.pages if self.since("running", now) is not None else 0
        # Without the tiny addition 12 pages at 7/12 of the time would be 6.999… pages.
        processed = int(self.progress(now) * total + 1e-9)
        failed = int(self.progress(now) * min(self.plan.failed_pages, total) + 1e-9)
        return {
            "pages_total": total,
            "pages_processed": processed,
            "pages_succeeded": processed - failed,
            "pages_failed": failed,
            "pages_credit": processed - failed,
        }

    def _error(self, now: float) -> str | None:
        if self.status(now) not in ("aborted", "failed"):
            return None
        return self.plan.error or "Page credits exhausted"

    def log(self, now: float) -> list[str]:
        """Return the lines of its log so far. A line that was there stays where it is."""
        lines: list[str] = []
        for at, level, message in self._entries(now):
            lines += f"{timestamp(at, 3)} {level} {message}".split("\n")
        return lines

    def _entries(self, now: float) -> list[tuple[float, str, str]]:
        entries = list(self.extra_log)
        if self._held_progress is None:
            written = [entry for at, status in self.history for entry in self._lines_of(at, status)]
            entries = sorted(written + entries, key=lambda entry: entry[0])
        return [entry for entry in entries if entry[0] <= now]

    def _lines_of(self, at: float, status: str) -> Iterator[tuple[float, str, str]]:
        if status == "started":
            yield at, "INFO", "Worker id: 3"
            shown = {"job_id": self.job_id, "agent_id": self.agent.agent_id, "status": status}
            yield at, "INFO", "Job: " + json.dumps(shown, separators=(",", ":"))
        elif status == "running":
            yield at, "INFO", f"Job id: {self.job_id}, Type: {self.agent.type}, Status: running"
            yield at, "INFO", f"Total inputs: {self.pages}"
            for level, message in self.plan.log:
                yield at, level, message
            if not self.manual:
                yield from self._page_log(at)
        elif status in MESSAGES:
            yield at, "INFO", MESSAGES[status].format(self.job_id)
        elif status in ("aborted", "failed"):
            reason = self.fields.get("error") or self._error(at)
            yield at, "ERROR", f"Job {self.job_id} {status}: {reason}\n    while fetching a page on worker 3"

    def _page_log(self, running: float) -> Iterator[tuple[float, str, str]]:
        left = next((at for at, _ in self.history if at > running), running)
        good = self.pages - self.plan.failed_pages
        for page in range(min(self.pages, MAX_LOGGED_PAGES)):
            at = running + self._running_seconds * page / self.pages
            if at > left:
                return
            yield at, "INFO", f"Running page {page + 1} of {self.pages}"
            if self.urls:
                yield at, "INFO", self.urls[page]
            yield (at, "INFO", "Status: 200") if page < good else (at, "WARN", "Status: 503")


def timestamp(at: float | None, digits: int = 0) -> str | None:
    """Write a time with so many digits after the second: ``2022-01-10T11:32:18.2362494Z``."""
    if at is None:
        return None
    fraction = f".{int(at % 1 * 10**digits):0{digits}d}" if digits else ""
    return f"{datetime.fromtimestamp(int(at), UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def clock_time(seconds: float) -> str:
    """Write a duration as lists do: ``00:03:18``."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
