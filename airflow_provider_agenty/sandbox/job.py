"""A job: what its states were, are and will be, and its log, all derived from the time."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_agenty.sandbox.agent import Agent, Plan

FINISHED = frozenset({"completed", "stopped", "aborted", "failed"})
BEFORE_A_WORKER = frozenset({"submitted", "starting", "queued"})
STATUSES = BEFORE_A_WORKER | FINISHED | {"started", "running", "completing", "stopping"}

# How a job's time is shared among its states. Queued lasts longer where no slot is free.
SHARE = {
    "submitted": 0.05,
    "starting": 0.05,
    "queued": 0.05,
    "started": 0.05,
    "running": 0.7,
    "completing": 0.1,
}
STOPPING_SHARE = 0.05
# What a job must have been through before it can be in a state that it is put into.
PASSED = {
    "running": ("started",),
    "completing": ("started", "running"),
    "completed": ("started", "running", "completing"),
}
# A job that does not complete breaks off when half of its pages are done.
ABORTED_AT = 0.5
MOST_LOGGED_PAGES = 100_000


@dataclass(eq=False)
class Job:
    """
    One job of the account.

    :param job_id: its id.
    :param agent: its agent, as it was when the job started.
    :param plan: how it goes.
    :param created_at: when it was started, in seconds since the epoch.
    :param seconds: how long it takes from start to end where it need not wait for a slot.
    :param urls: the URLs of its input, if it has any.
    :param is_scheduled: whether Agenty's own scheduler started it.
    :param manual: whether it stays in its state until told otherwise.
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
    # (when, state), in order of time; what lies in the future is what will happen if nothing interferes.
    history: list[tuple[float, str]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    script: deque[dict[str, Any]] = field(default_factory=deque)
    extra_log: list[tuple[float, str, str]] = field(default_factory=list)
    # What it had done when it was first held in a state: from then on nothing follows from the time any more.
    _held_progress: float | None = None

    def __post_init__(self) -> None:
        if self.history:
            return
        self.history = [(self.created_at, "submitted")]
        if not self.manual:
            self.history.append((self.created_at + self.seconds * SHARE["submitted"], "starting"))
            self.history.append((self.history[-1][0] + self.seconds * SHARE["starting"], "queued"))

    @property
    def ready_at(self) -> float:
        """When it may take a slot, at the earliest."""
        return self.history[-1][0] + self.seconds * SHARE["queued"]

    @property
    def ends_at(self) -> float:
        """When the last thing happens that is planned."""
        return self.history[-1][0]

    @property
    def pages(self) -> int:
        """How many pages it fetches."""
        return len(self.urls) or self.plan.pages

    def take_slot(self, at: float) -> None:
        """Plan everything from the moment a worker picks it up."""
        running = at + self.seconds * SHARE["started"]
        self.history += [(at, "started"), (running, "running")]
        if self.plan.outcome != "completed":
            self.history.append((running + self._running_seconds * ABORTED_AT, self.plan.outcome))
            return
        completing = running + self._running_seconds
        self.history.append((completing, "completing"))
        self.history.append((completing + self.seconds * SHARE["completing"], "completed"))

    @property
    def _running_seconds(self) -> float:
        return self.seconds * SHARE["running"]

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
        if self.manual:
            self.put("stopped", now, {})
            return
        self.history = [(at, each) for at, each in self.history if at <= now]
        if status in BEFORE_A_WORKER:
            self.history.append((now, "stopped"))
        else:
            self.history.append((now, "stopping"))
            self.history.append((now + self.seconds * STOPPING_SHARE, "stopped"))

    def put(self, status: str, now: float, fields: dict[str, Any]) -> None:
        """Hold it in a state from now on."""
        if self._held_progress is None:
            self.extra_log = self._entries(now)
            self._held_progress = self.progress(now)
        self.manual = True
        self.history = [(at, each) for at, each in self.history if at <= now]
        self.fields |= fields
        been = {each for _, each in self.history}
        steps = [each for each in PASSED.get(status, ()) if each not in been]
        if self.status(now) != status:
            steps.append(status)
        for each in steps:
            self.history.append((now, each))
            self.extra_log += self._lines_of(now, each)

    def follow_script(self, now: float) -> None:
        """Take the next step of its script, if it has one."""
        if self.script:
            step = dict(self.script.popleft())
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

    def page_figures(self, now: float) -> dict[str, int]:
        """Return the job object's figures on pages."""
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

    def error(self, now: float) -> str | None:
        """Return why it did not complete, once that is so."""
        if self.status(now) not in ("aborted", "failed"):
            return None
        return self.plan.error or "Page credits exhausted"

    def log(self, now: float) -> list[str]:
        """Return the lines of its log so far. A line that was there stays where it is."""
        lines: list[str] = []
        for at, level, message in self._entries(now):
            lines += f"{milliseconds(at)} {level} {message}".split("\n")
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
            yield at, "INFO", "Job: " + json.dumps(self._short(status), separators=(",", ":"))
        elif status == "running":
            yield at, "INFO", f"Job id: {self.job_id}, Type: {self.agent.type}, Status: running"
            yield at, "INFO", f"Total inputs: {self.pages}"
            for level, message in self.plan.log:
                yield at, level, message
            if not self.manual:
                yield from self._page_log(at)
        elif status == "completing":
            yield at, "INFO", "Running post-processing scripts..."
        elif status == "completed":
            yield at, "INFO", f"Job {self.job_id} completed successfully"
        elif status == "stopping":
            yield at, "INFO", "Stop request received"
        elif status == "stopped":
            yield at, "INFO", f"Job {self.job_id} stopped"
        elif status in ("aborted", "failed"):
            reason = self.fields.get("error") or self.error(at)
            yield at, "ERROR", f"Job {self.job_id} {status}: {reason}\n    while fetching a page on worker 3"

    def _page_log(self, running: float) -> Iterator[tuple[float, str, str]]:
        left = next((at for at, _ in self.history if at > running), running)
        good = self.pages - self.plan.failed_pages
        for page in range(min(self.pages, MOST_LOGGED_PAGES)):
            at = running + self._running_seconds * page / self.pages
            if at > left:
                return
            yield at, "INFO", f"Running page {page + 1} of {self.pages}"
            if self.urls:
                yield at, "INFO", self.urls[page]
            if page < good:
                yield at, "INFO", "Status: 200"
            else:
                yield at, "WARN", "Status: 503"

    def _short(self, status: str) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "agent_id": self.agent.agent_id,
            "type": self.agent.type,
            "status": status,
            "priority": self.priority,
            "is_scheduled": int(self.is_scheduled),
        }


def milliseconds(at: float) -> str:
    """Write a moment as the lines of a log do: ``2022-01-10T07:46:08.145Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def whole_seconds(at: float | None) -> str | None:
    """Write a moment as status and lists do: ``2022-01-10T11:10:55Z``."""
    if at is None:
        return None
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")


def seven_digits(at: float | None) -> str | None:
    """Write a moment as it comes from the server's memory: ``2022-01-10T11:32:18.2362494Z``."""
    if at is None:
        return None
    moment = datetime.fromtimestamp(at, UTC)
    # Floats end at microseconds; the seventh digit is there because clients stumble over it.
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}{int(at * 1e7) % 10}Z"


def clock_time(seconds: float) -> str:
    """Write a duration as lists do: ``00:03:18``."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
