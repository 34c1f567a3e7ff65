"""Lists and logs that come in pages: read by what a page holds, never by what was asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.jobs import Job, holds_job, unwrap
from airflow_provider_agenty.api.logs import LogEntry, read_entries, split_lines
from airflow_provider_agenty.api.transport import Answer, Transport

LOG_PAGE = 2500
JOB_PAGE = 1000


@dataclass(frozen=True)
class Page:
    """A page of a list: what it holds, where it begins and how many there are in all."""

    rows: list[Any]
    offset: int
    total: int

    @classmethod
    def from_answer(cls, answer: Answer, *, offset: int) -> Page:
        """
        Read a page out of an answer.

        :param answer: The answer.
        :param offset: What was asked for.
        :raises UnexpectedAnswerError: if the answer holds no page.
        """
        values = unwrap(answer.json())
        rows = values.get("result") if isinstance(values, Mapping) else None
        total = values.get("total") if isinstance(values, Mapping) else None
        if not isinstance(rows, list) or not isinstance(total, int) or isinstance(total, bool) or total < 0:
            raise answer.unexpected("holds no page: total or result is missing")
        return cls(rows=rows, offset=offset, total=total)

    @property
    def end(self) -> int:
        """The offset behind the last row."""
        return self.offset + len(self.rows)


def iter_jobs(transport: Transport, *, agent_id: str | None, limit: int = JOB_PAGE) -> Iterator[Job]:
    """
    Yield the jobs of an agent, or of the account, as they are listed: newest first.

    Jobs that are started meanwhile move the pages on; no job is yielded twice.

    :param transport: Where to ask.
    :param agent_id: The agent; ``None``: all.
    :param limit: How many to ask for at once.
    """
    seen: set[int] = set()
    offset = 0
    while True:
        page = read_job_page(transport, agent_id=agent_id, limit=limit, offset=offset)
        for values in page.rows:
            job = Job.from_answer(values)
            if job.job_id not in seen:
                seen.add(job.job_id)
                yield job
        offset = page.end
        if not page.rows or offset >= page.total:
            return


@dataclass(frozen=True)
class JobPage:
    """
    One page of the list of jobs.

    :param jobs: The jobs in it, by id.
    :param next_offset: Where the next page begins; ``None`` if there is none.
    """

    jobs: Mapping[int, Job]
    next_offset: int | None


def look_at_jobs(transport: Transport, *, limit: int, offset: int) -> JobPage:
    """
    Return what one page of the list of all jobs shows, newest first.

    :param transport: Where to ask.
    :param limit: How many jobs to ask for.
    :param offset: How many to skip.
    """
    page = Page.from_answer(_read_list(transport, None, limit=limit, offset=offset), offset=offset)
    # An odd row is passed over: it must not hide all others from one who looks again and again.
    jobs = [Job.from_answer(row) for row in page.rows if holds_job(row)]
    is_last = not page.rows or page.end >= page.total
    return JobPage({job.job_id: job for job in jobs}, None if is_last else page.end)


@dataclass(frozen=True)
class Sighting:
    """
    What one page of the list of jobs shows of the jobs that were looked for.

    :param jobs: Those that it shows, by id.
    :param next_offset: Where the next page begins; ``None`` if the others will not be further on.
    """

    jobs: Mapping[int, Job]
    next_offset: int | None


def look_for_jobs(transport: Transport, job_ids: Collection[int], *, limit: int, offset: int) -> Sighting:
    """
    Look for some jobs in one page of the list of all jobs.

    :param transport: Where to ask.
    :param job_ids: The jobs.
    :param limit: How many jobs to ask for.
    :param offset: How many to skip.
    """
    # An odd row is passed over: its job is not seen, and asked for by itself.
    page = Page.from_answer(_read_list(transport, None, limit=limit, offset=offset), offset=offset)
    listed = {int(row["job_id"]): row for row in page.rows if holds_job(row)}
    # The newest come first: what is newer than the oldest of this page will not come later.
    is_last = not page.rows or page.end >= page.total or min(listed, default=0) <= min(job_ids)
    jobs = {job_id: Job.from_answer(listed[job_id]) for job_id in job_ids if job_id in listed}
    return Sighting(jobs, None if is_last else page.end)


def read_job_page(transport: Transport, *, agent_id: str | None, limit: int, offset: int = 0) -> Page:
    """
    Return one page of the list of jobs (``GET /jobs``), newest first.

    :param transport: Where to ask.
    :param agent_id: The agent; ``None``: all.
    :param limit: How many to ask for.
    :param offset: How many to skip.
    """
    answer = _read_list(transport, agent_id, limit=limit, offset=offset)
    page = Page.from_answer(answer, offset=offset)
    if not all(holds_job(values) for values in page.rows):
        raise answer.unexpected("holds a job without job_id or status")
    return page


def _read_list(transport: Transport, agent_id: str | None, *, limit: int, offset: int) -> Answer:
    parameters: dict[str, Any] = {"offset": offset, "limit": limit}
    if agent_id is not None:
        parameters["agent_id"] = agent_id
    return transport.read("/jobs", parameters)


def iter_logs(transport: Transport, job_id: int, *, offset: int) -> Iterator[LogEntry]:
    """
    Yield the entries of a job's log.

    :param transport: Where to ask.
    :param job_id: The job.
    :param offset: How many lines to skip.
    """
    return read_entries(_iter_log_lines(transport, job_id, offset), offset=offset)


def _iter_log_lines(transport: Transport, job_id: int, offset: int) -> Iterator[str]:
    # Nothing says how many lines there are, and the server may give fewer than asked for: the end is an empty page.
    while True:
        answer = transport.read(f"/jobs/{job_id}/logs", {"offset": offset, "limit": LOG_PAGE})
        if answer.is_html:
            raise answer.unexpected("is HTML, not a log")
        lines = split_lines(answer.body)
        if not lines:
            return
        yield from lines
        offset += len(lines)
