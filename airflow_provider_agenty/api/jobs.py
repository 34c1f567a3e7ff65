"""A job of an agent, and the one table of the states it can be in."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_agenty.api.errors import UnexpectedAnswerError

WAITING_STATES = frozenset({"submitted", "starting", "queued"})
"""No worker has picked the job up yet."""

ACTIVE_STATES = WAITING_STATES | {"started", "running", "completing"}
"""The job is on its way and will end by itself. Agenty documents ``starting`` and sends ``submitted``."""

ENDING_STATES = frozenset({"stopping"})
"""Not done, but its end is decided: nobody should attach to it any more."""

SUCCESSFUL_STATES = frozenset({"completed"})
STOPPED_STATES = frozenset({"stopped"})
FAILED_STATES = frozenset({"aborted", "failed"})

TERMINAL_STATES = SUCCESSFUL_STATES | STOPPED_STATES | FAILED_STATES
KNOWN_STATES = ACTIVE_STATES | ENDING_STATES | TERMINAL_STATES

# Each poll reads the same times of the same jobs again.
_remembered = functools.lru_cache(maxsize=16_384)

_DURATION = re.compile(r"(?:(\d+)\.)?(\d+):(\d{2}):(\d{2})(?:\.(\d+))?")


@dataclass(frozen=True)
class Job:
    """
    A job as Agenty described it at one moment.

    Only ``job_id`` and ``status`` can be relied on; anything else is ``None`` where Agenty did not say it.
    Times are aware (UTC), durations are :class:`~datetime.timedelta`. A field that is not listed here is kept
    in :attr:`raw`.
    """

    job_id: int
    status: str
    account_id: int | None = None
    agent_id: str | None = None
    type: str | None = None
    priority: int | None = None
    pages_total: int | None = None
    pages_processed: int | None = None
    pages_succeeded: int | None = None
    pages_failed: int | None = None
    pages_credit: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    stopped_at: datetime | None = None
    is_scheduled: bool | None = None
    queue_time: timedelta | None = None
    run_duration: timedelta | None = None
    error: str | None = None
    ping_at: datetime | None = None
    assigned_worker_id: int | None = None
    running_worker_id: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_answer(cls, answer: Any) -> Job:
        """
        Read a job out of an answer of the API, or out of what :meth:`to_dict` made.

        :param answer: The decoded JSON; it may come wrapped as ``{"data": {…}}``.
        :raises UnexpectedAnswerError: if it holds no job.
        """
        if not holds_job(answer):
            raise UnexpectedAnswerError("Agenty's answer holds no job: job_id or status is missing")
        values = unwrap(answer)
        job_id, status = int(values["job_id"]), values["status"]
        known: dict[str, Any] = {
            # Most are null: a poll reads a thousand jobs at once.
            name: read(value)
            for name, read in _READERS.items()
            if (value := values.get(name)) is not None
        }
        if known.get("pages_succeeded") is None:
            # The spelling of older answers.
            known["pages_succeeded"] = _integer(values.get("pages_successed"))
        return cls(job_id=job_id, status=status.strip().lower(), raw=values, **known)

    @property
    def is_terminal(self) -> bool:
        """Whether the job is over. A state that is not known is not: the job may go on."""
        return self.status in TERMINAL_STATES

    @property
    def is_successful(self) -> bool:
        """Whether the job is over and its result is final."""
        return self.status in SUCCESSFUL_STATES

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped the job."""
        return self.status in STOPPED_STATES

    @property
    def is_active(self) -> bool:
        """Whether the job is known to go on by itself, so that waiting for it makes sense."""
        return self.status in ACTIVE_STATES

    @property
    def is_waiting(self) -> bool:
        """Whether the job waits for a worker to pick it up."""
        return self.status in WAITING_STATES

    @property
    def is_known(self) -> bool:
        """Whether the state is one that this version knows."""
        return self.status in KNOWN_STATES

    @property
    def progress(self) -> float | None:
        """The share of its pages that the job has processed, 0 to 1; ``None`` while their number is unknown."""
        if not self.pages_total or self.pages_processed is None:
            return None
        return min(max(self.pages_processed / self.pages_total, 0.0), 1.0)

    @property
    def failed_ratio(self) -> float:
        """The share of its pages that failed, 0 to 1; 0 where Agenty named no failed page."""
        failed = self.pages_failed or 0
        # Agenty's figures overlap: a documented job has 1 page, of which 1 succeeded and 1 failed.
        pages = max(self.pages_total or 0, self.pages_processed or 0, failed)
        return failed / pages if pages else 0.0

    def to_dict(self) -> dict[str, Any]:
        """
        Return the job as JSON primitives, for XCom and trigger events; :meth:`from_answer` reads them back.

        Times are ISO 8601 text, durations ``HH:MM:SS``; :attr:`raw` is left out.
        """
        return {f.name: _primitive(getattr(self, f.name)) for f in fields(self) if f.name != "raw"}

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """Return the state with its figures: ``running: 37/120 pages (31 %), 2 failed, 35 credits``."""
        figures = []
        if self.pages_total:
            progress = f" ({self.progress:.0%})".replace("%", " %") if self.progress is not None else ""
            figures.append(f"{self.pages_processed or 0}/{self.pages_total} pages{progress}")
        if self.pages_failed:
            figures.append(f"{self.pages_failed} failed")
        if self.pages_credit:
            figures.append(f"{self.pages_credit} credit{'' if self.pages_credit == 1 else 's'}")
        return f"{self.status}: {', '.join(figures)}" if figures else self.status


def unwrap(answer: Any) -> Any:
    """Return what an answer holds, whether it came bare or as ``{"data": {…}}``."""
    if isinstance(answer, Mapping) and isinstance(answer.get("data"), Mapping):
        return answer["data"]
    return answer


def holds_job(answer: Any) -> bool:
    """Return whether an answer holds what can be relied on in a job: its id and its state."""
    values = unwrap(answer)
    if not isinstance(values, Mapping):
        return False
    status = values.get("status")
    return _integer(values.get("job_id")) is not None and isinstance(status, str) and bool(status.strip())


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    return None if value is None else bool(value)


def read_moment(value: Any) -> datetime | None:
    """Return a time as Agenty writes it, with up to seven fractional digits; ``None`` if it is none."""
    return _moment_of(value) if isinstance(value, str) and value.strip() else None


@_remembered
def _moment_of(text: str) -> datetime | None:
    try:
        # What is beyond microseconds is cut off.
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _duration(value: Any) -> timedelta | None:
    return _duration_of(value) if isinstance(value, str) else None


@_remembered
def _duration_of(text: str) -> timedelta | None:
    matched = _DURATION.fullmatch(text.strip())
    if not matched:
        return None
    days, hours, minutes, seconds, fraction = matched.groups(default="0")
    try:
        return timedelta(
            days=int(days),
            hours=int(hours),
            minutes=int(minutes),
            seconds=int(seconds),
            microseconds=int(fraction[:6].ljust(6, "0")),
        )
    except (ValueError, OverflowError):
        return None


def _primitive(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        seconds = value // timedelta(seconds=1)
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return f"{text}.{value.microseconds:06}" if value.microseconds else text
    return value


_READERS = {
    "account_id": _integer,
    "agent_id": _text,
    "type": _text,
    "priority": _integer,
    "pages_total": _integer,
    "pages_processed": _integer,
    "pages_succeeded": _integer,
    "pages_failed": _integer,
    "pages_credit": _integer,
    "created_at": read_moment,
    "started_at": read_moment,
    "completed_at": read_moment,
    "stopped_at": read_moment,
    "is_scheduled": _boolean,
    "queue_time": _duration,
    "run_duration": _duration,
    "error": _text,
    "ping_at": read_moment,
    "assigned_worker_id": _integer,
    "running_worker_id": _integer,
}
