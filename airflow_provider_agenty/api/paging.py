"""Lists and results that come in pages: read by what a page holds, never by what was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.errors import UnexpectedAnswerError
from airflow_provider_agenty.api.jobs import Job, holds_job, unwrap
from airflow_provider_agenty.api.logs import LogEntry, read_entries, split_lines
from airflow_provider_agenty.api.transport import Answer, Transport

RESULT_PAGE = 2500
"""The most rows Agenty gives in one page of a result; it may give fewer."""

LOG_PAGE = 2500
JOB_PAGE = 1000

PAGES_AHEAD = 12
"""How many pages of a result are fetched at once, and so how many are in memory."""


@dataclass(frozen=True)
class Page:
    """A page of a list: what it holds, where it begins, how many there are in all, and the answer's ``Date``."""

    rows: list[Any]
    offset: int
    total: int
    date: str | None = None

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
        return cls(rows=rows, offset=offset, total=total, date=answer.headers.get("Date"))

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


def read_result_total(transport: Transport, job_id: int, *, collection: int, modified: bool) -> int:
    """
    Return how many rows a result has.

    :param transport: Where to ask.
    :param job_id: The job.
    :param collection: The collection, counted from 1.
    :param modified: Whether the result after post-processing is meant.
    """
    return _read_result_page(transport, job_id, collection, modified, offset=0, limit=1).total


def iter_result(transport: Transport, job_id: int, *, collection: int, modified: bool) -> Iterator[dict[str, Any]]:
    """
    Yield the rows of a result in order, as :func:`iter_result_pages` reads them.

    :param transport: Where to ask.
    :param job_id: The job.
    :param collection: The collection, counted from 1.
    :param modified: Whether the result after post-processing is meant.
    :raises UnexpectedAnswerError: if the server gives fewer rows than it says there are.
    """
    with closing(iter_result_pages(transport, job_id, collection=collection, modified=modified)) as pages:
        for page in pages:
            yield from page


def iter_result_pages(
    transport: Transport, job_id: int, *, collection: int, modified: bool, pages_ahead: int = PAGES_AHEAD
) -> Generator[list[dict[str, Any]], None, None]:
    """
    Yield the pages of a result in order, with the next ones already on their way.

    The first page tells how many rows the server gives at once, the others are asked for in such pieces.

    :param transport: Where to ask.
    :param job_id: The job.
    :param collection: The collection, counted from 1.
    :param modified: Whether the result after post-processing is meant.
    :param pages_ahead: How many pages to fetch at once, and to hold in memory.
    :return: The rows of each page; only the page of an empty result has none.
    :raises UnexpectedAnswerError: if the server gives fewer rows than it says there are.
    """

    def read_piece(offset: int, limit: int) -> Page:
        return _read_result_page(transport, job_id, collection, modified, offset=offset, limit=limit)

    first = read_piece(0, RESULT_PAGE)
    yield first.rows
    if first.end >= first.total:
        return
    if not first.rows:
        raise _ended_early(job_id, 0, first.total)
    size = len(first.rows)
    pieces = ((offset, min(size, first.total - offset)) for offset in range(first.end, first.total, size))
    executor = ThreadPoolExecutor(max_workers=pages_ahead, thread_name_prefix="agenty-result")
    try:
        pending: deque[Future[list[Any]]] = deque()
        for offset, count in pieces:
            pending.append(executor.submit(_read_rows, read_piece, job_id, offset, count, first.total))
            if len(pending) >= pages_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _read_rows(read_piece: Callable[[int, int], Page], job_id: int, offset: int, count: int, total: int) -> list[Any]:
    """Return exactly so many rows, in as many requests as the server makes of it."""
    rows: list[Any] = []
    while len(rows) < count:
        page = read_piece(offset + len(rows), count - len(rows))
        if page.total < total:
            raise UnexpectedAnswerError(
                f"The result of job {job_id} changed while it was read: it had {total} rows and has {page.total} now. "
                "Read it again."
            )
        if not page.rows:
            raise _ended_early(job_id, offset + len(rows), total)
        rows += page.rows
    return rows[:count]


def _ended_early(job_id: int, offset: int, total: int) -> UnexpectedAnswerError:
    return UnexpectedAnswerError(
        f"The result of job {job_id} ended at row {offset} of {total}: Agenty answered with an empty page. Read it "
        "again."
    )


def _read_result_page(
    transport: Transport, job_id: int, collection: int, modified: bool, *, offset: int, limit: int
) -> Page:
    parameters = {"offset": offset, "limit": limit, "collection": collection, "modified": int(modified)}
    answer = transport.read(f"/jobs/{job_id}/result", parameters)
    page = Page.from_answer(answer, offset=offset)
    if not all(isinstance(row, dict) for row in page.rows):
        raise answer.unexpected("holds a row that is not an object")
    return page


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
