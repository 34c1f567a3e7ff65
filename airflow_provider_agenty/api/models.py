"""A job of an agent, and the one table of the states it can be in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, ClassVar

from airflow_provider_agenty.api.validation import (
    LONGEST_NAME,
    Clean,
    clean_text,
    read_agent_id,
    read_boolean,
    read_duration,
    read_integer,
    read_job_id,
    read_moment,
    read_name,
    read_text,
)
from airflow_provider_agenty.exceptions import AgentyUnexpectedAnswerError

# No worker has picked the job up yet. Agenty documents ``starting`` and sends ``submitted``.
WAITING_STATES = frozenset({"submitted", "starting", "queued"})
# The job is on its way and will end by itself.
ACTIVE_STATES = WAITING_STATES | {"started", "running", "completing"}
# Not done, but its end is decided: nobody should attach to it any more.
ENDING_STATES = frozenset({"stopping"})
SUCCESSFUL_STATES = frozenset({"completed"})
STOPPED_STATES = frozenset({"stopped"})
FAILED_STATES = frozenset({"aborted", "failed"})

TERMINAL_STATES = SUCCESSFUL_STATES | STOPPED_STATES | FAILED_STATES
KNOWN_STATES = ACTIVE_STATES | ENDING_STATES | TERMINAL_STATES


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
    answered_at: ClassVar[datetime | None] = None
    """When Agenty said this, by its own clock: set for a job, and no field of it."""

    @classmethod
    def from_answer(cls, answer: Any, *, clean: Clean = clean_text, answered_at: datetime | None = None) -> Job:
        """Read a job out of a decoded answer of the API, or out of what :meth:`to_dict` made."""
        values = unwrap(answer)
        job_id, status = _identity(values)
        if job_id is None or status is None:
            raise AgentyUnexpectedAnswerError("Agenty's answer holds no job: job_id or status is missing")
        known: dict[str, Any] = {
            # Most are null: a poll reads a thousand jobs at once.
            name: read(value)
            for name, read in _READERS.items()
            if (value := values.get(name)) is not None
        }
        known |= {name: read(values[name], clean) for name, read in _TEXT_READERS.items() if values.get(name)}
        if known.get("pages_succeeded") is None:
            # The spelling of older answers.
            known["pages_succeeded"] = read_integer(values.get("pages_successed"))
        status = clean(status.strip().lower())[:LONGEST_NAME]
        job = cls(job_id=job_id, status=status, raw=values, **known)
        object.__setattr__(job, "answered_at", answered_at)
        return job

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
    def may_go_on(self) -> bool:
        """Whether the job may complete yet: one that is stopping won't, one in a state that is not known may."""
        return self.is_active or not self.is_known

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
        # More pages processed than there are: pagination finds pages that were not counted before.
        if not self.pages_total or self.pages_processed is None or self.pages_processed > self.pages_total:
            return None
        return max(self.pages_processed / self.pages_total, 0.0)

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

    def describe(self, *, max_credits: float | None = None) -> str:
        """Return the state with its figures: ``running: 37/120 pages (31 %), 2 failed, 35 of at most 500 credits``."""
        figures = []
        if self.progress is not None:
            figures.append(f"{self.pages_processed}/{self.pages_total} pages ({self.progress:.0%})".replace("%", " %"))
        elif self.pages_processed:
            figures.append(f"{self.pages_processed} page{'' if self.pages_processed == 1 else 's'}")
        elif self.pages_total:
            figures.append(f"0/{self.pages_total} pages")
        if self.pages_failed:
            figures.append(f"{self.pages_failed} failed")
        if max_credits is not None and self.pages_credit is not None:
            figures.append(f"{self.pages_credit} of at most {max_credits:.16g} credits")
        elif self.pages_credit:
            figures.append(f"{self.pages_credit} credit{'' if self.pages_credit == 1 else 's'}")
        return f"{self.status}: {', '.join(figures)}" if figures else self.status

    __str__ = describe


def unwrap(answer: Any) -> Any:
    """Return what an answer holds, whether it came bare or as ``{"data": {…}}``."""
    if isinstance(answer, Mapping) and isinstance(answer.get("data"), Mapping):
        return answer["data"]
    return answer


def holds_job(answer: Any) -> bool:
    """Return whether an answer holds what can be relied on in a job: its id and its state."""
    return None not in _identity(unwrap(answer))


def _identity(values: Any) -> tuple[int | None, str | None]:
    if not isinstance(values, Mapping):
        return None, None
    status = values.get("status")
    return read_job_id(values.get("job_id")), status if isinstance(status, str) and status.strip() else None


def _primitive(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        seconds = value // timedelta(seconds=1)
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return f"{text}.{value.microseconds:06}" if value.microseconds else text
    return value


_READERS = {
    "agent_id": read_agent_id,
    "is_scheduled": read_boolean,
    **dict.fromkeys(["account_id", "priority", "assigned_worker_id", "running_worker_id"], read_integer),
    **dict.fromkeys(["pages_total", "pages_processed", "pages_succeeded", "pages_failed"], read_integer),
    "pages_credit": read_integer,
    **dict.fromkeys(["created_at", "started_at", "completed_at", "stopped_at", "ping_at"], read_moment),
    **dict.fromkeys(["queue_time", "run_duration"], read_duration),
}
_TEXT_READERS = {"type": read_name, "error": read_text}
