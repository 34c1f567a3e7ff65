"""The list of jobs, which comes in pages: read by what a page holds, never by what was asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, takewhile
from typing import Any

from airflow_provider_agenty.api.models import Job, holds_job, unwrap
from airflow_provider_agenty.api.request import Answer, Transport

JOB_PAGE = 1000


def rows_and_total(values: Any, answer: Answer) -> tuple[list[Any], int]:
    """Return the rows of a page, and how many the list has in all, from the decoded answer."""
    values = unwrap(values)
    rows = values.get("result") if isinstance(values, Mapping) else None
    total = values.get("total") if isinstance(values, Mapping) else None
    if not isinstance(rows, list) or not isinstance(total, int) or isinstance(total, bool) or total < 0:
        raise answer.unexpected("holds no page: total or result is missing")
    return rows, total


def iter_jobs(
    transport: Transport, *, agent_id: str | None, since: datetime | None = None, limit: int = JOB_PAGE
) -> Iterator[Job]:
    """
    Yield the jobs of an agent, or of the account, as they are listed: newest first.

    Jobs that are started meanwhile move the pages on; no job is yielded twice. The list ends where a page has nothing
    new: a server may go on for ever.

    :param since: Jobs that were made earlier are left out, those without a time are not. The list ends at the first
        such job as long as each id is lower than the one before it: Agenty promises no order.
    """
    # Lists carry whole seconds.
    begins = since and since.replace(microsecond=0)

    def is_recent(job: Job) -> bool:
        return begins is None or job.created_at is None or job.created_at >= begins

    seen: set[int] = set()
    newest_first = True
    offset: int | None = 0
    while offset is not None:
        page = read_job_page(transport, agent_id=agent_id, limit=limit, offset=offset)
        new = [job for job_id, job in page.jobs.items() if job_id not in seen]
        newest_first = newest_first and _goes_on_down(new, below=min(seen, default=sys.maxsize))
        seen |= page.jobs.keys()
        # A single job has no order.
        ends_at_older = newest_first and len(seen) > 1
        recent = list(takewhile(is_recent, new) if ends_at_older else filter(is_recent, new))
        yield from recent
        offset = page.next_offset if new and not (ends_at_older and len(recent) < len(new)) else None


def _goes_on_down(jobs: list[Job], *, below: int) -> bool:
    ids = [below, *(job.job_id for job in jobs)]
    return all(newer > older for newer, older in pairwise(ids))


@dataclass(frozen=True)
class JobPage:
    """
    One page of the list of jobs.

    :param jobs: The jobs in it by id, in the order of the list.
    :param total: The number of jobs in the whole list, as the page says.
    :param begin: The offset of the page's first row.
    :param end: The offset behind its last row.
    :param date: The ``Date`` of the answer.
    """

    jobs: Mapping[int, Job]
    total: int
    begin: int
    end: int
    date: str | None

    @property
    def next_offset(self) -> int | None:
        """The offset of the next page; ``None`` if there is none."""
        return self.end if self.begin < self.end < self.total else None

    @property
    def is_newest_first(self) -> bool:
        """Whether each job is older than the one before it, as Agenty lists them."""
        return all(newer > older for newer, older in pairwise(self.jobs))


def read_job_page(
    transport: Transport, *, agent_id: str | None, limit: int, offset: int = 0, skips_odd_rows: bool = False
) -> JobPage:
    """
    Return one page of the list of jobs (``GET /jobs``).

    :param skips_odd_rows: Whether a row that is no job is passed over, for one who looks again and again: it must not
        hide all others. Default: it is an error.
    """
    parameters: dict[str, Any] = {"offset": offset, "limit": limit}
    if agent_id is not None:
        parameters["agent_id"] = agent_id
    answer = transport.read("/jobs", parameters)
    rows, total = rows_and_total(answer.json(), answer)
    listed = [values for values in rows if holds_job(values)]
    if len(listed) < len(rows) and not skips_odd_rows:
        raise answer.unexpected("holds a job without job_id or status")
    jobs = {job.job_id: job for job in map(answer.read_job, listed)}
    return JobPage(jobs, total, offset, offset + len(rows), answer.headers.get("Date"))
