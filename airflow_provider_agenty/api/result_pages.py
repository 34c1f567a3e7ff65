"""The rows of a result, which come in pages: read by what a page holds, never by what was asked for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.api.background import in_background
from airflow_provider_agenty.api.json_rows import UnreadableRowsError, decode_rows
from airflow_provider_agenty.api.pages import rows_and_total
from airflow_provider_agenty.api.request import Transport
from airflow_provider_agenty.api.validation import holds_too_many_values
from airflow_provider_agenty.exceptions import AgentyAnswerTooLargeError, AgentyUnexpectedAnswerError

log = logging.getLogger(__name__)

RESULT_PAGE = 2500
"""The most rows Agenty gives in one page of a result; it may give fewer."""

PAGES_AHEAD = 12
"""How many pages of a result are fetched at once, and so how many are in memory."""

_PAGE_BYTES = 5 * 1024 * 1024
"""Where rows are large, so few are asked for at once that a page has about this size; if one row has more, fewer pages
are fetched at once."""

_FEWER = 4
"""How many times fewer rows are asked for where the answer was too large."""


@dataclass(frozen=True)
class _Page:
    """Rows as they came in one answer: where they begin, how many the result has, how many bytes they took."""

    rows: list[dict[str, Any]]
    offset: int
    total: int
    size: int

    @property
    def end(self) -> int:
        """The offset behind the last row."""
        return self.offset + len(self.rows)

    @property
    def row_size(self) -> int:
        """How many bytes a row took."""
        return self.size // max(1, len(self.rows))


@dataclass(frozen=True)
class _Piece:
    """
    A part of a result.

    :param rows: All of its rows.
    :param row_size: How many bytes one took.
    :param most: How many rows the server gave at once.
    :param was_cut: Whether these were fewer than it was asked for.
    """

    rows: list[dict[str, Any]]
    row_size: int
    most: int
    was_cut: bool


class _Result:
    """A result that is read in pieces, several at once."""

    def __init__(self, transport: Transport, job_id: int, collection: int, modified: bool, keep_numbers: bool) -> None:
        self._transport = transport
        self._job_id = job_id
        self._parameters = {"collection": collection, "modified": int(modified)}
        self._keep_numbers = keep_numbers
        self.has_no_numbers = False
        self.is_given_up = False

    def read_piece(self, offset: int, count: int, limit: int, total: int) -> _Piece:
        """Return exactly so many rows, in as many requests as the server makes of it, the first with this limit."""
        rows: list[dict[str, Any]] = []
        row_size, most, was_cut = 0, 0, False
        while len(rows) < count and not self.is_given_up:
            page = self.read_page(offset + len(rows), limit, total)
            if not page.rows:
                raise self.ended_early(page)
            rows += page.rows
            if len(page.rows) > most:
                most, was_cut = len(page.rows), len(page.rows) < limit
            row_size = page.row_size
            limit = min(_rows_at_once(row_size), max(1, count - len(rows)))
        return _Piece(rows[:count], row_size, most, was_cut)

    def read_page(self, offset: int, limit: int, total: int | None = None) -> _Page:
        """Return one page, of fewer rows than the limit where as many are too large; it must fit to the total."""
        page = None
        while page is None:
            try:
                page = self._read_page(offset, limit)
            except AgentyAnswerTooLargeError:
                if limit == 1:
                    raise
                limit = max(1, limit // _FEWER)
        if total is not None and page.total != total:
            raise AgentyUnexpectedAnswerError(
                f"The result of job {self._job_id} changed while it was read: it had {total} rows and has "
                f"{page.total} now. Read it again."
            )
        if page.rows and page.end > page.total:
            raise AgentyUnexpectedAnswerError(
                f"The result of job {self._job_id} has {page.total} rows, as Agenty says, and gave {page.end}. "
                "Read it again; if it stays so, tell Agenty."
            )
        return page

    def _read_page(self, offset: int, limit: int) -> _Page:
        answer = self._transport.read(
            f"/jobs/{self._job_id}/result", {"offset": offset, "limit": limit, **self._parameters}
        )
        if holds_too_many_values(answer.body):
            raise AgentyAnswerTooLargeError(
                f"{answer.call}: the answer (HTTP {answer.status}) holds more values than are decoded of one"
            )
        try:
            decoded = decode_rows(answer.body, keep_numbers=self._keep_numbers)
        except UnreadableRowsError as error:
            raise answer.unexpected(str(error)) from None
        rows, total = rows_and_total(decoded.values, answer)
        if not all(isinstance(row, dict) for row in rows):
            raise answer.unexpected("holds a row that is not an object")
        self.has_no_numbers |= decoded.has_no_numbers
        return _Page(rows, offset, total, len(answer.body))

    def ended_early(self, page: _Page) -> AgentyUnexpectedAnswerError:
        """Make the error that says that there is a page without rows before the end."""
        return AgentyUnexpectedAnswerError(
            f"The result of job {self._job_id} ended at row {page.offset} of {page.total}: Agenty answered with an "
            "empty page. Read it again."
        )


def read_result_total(transport: Transport, job_id: int, *, collection: int, modified: bool) -> int:
    """
    Return how many rows a result has.

    :param transport: Where to ask.
    :param job_id: The job.
    :param collection: The collection, counted from 1.
    :param modified: Whether the result after post-processing is meant.
    """
    return _Result(transport, job_id, collection, modified, keep_numbers=False).read_page(0, 1).total


def iter_result(transport: Transport, job_id: int, *, collection: int, modified: bool) -> Iterator[dict[str, Any]]:
    """
    Yield the rows of a result in order, as :func:`iter_result_pages` reads them, in plain Python.

    A number that fits neither into 64 bits nor into a float is its text.

    :param transport: Where to ask.
    :param job_id: The job.
    :param collection: The collection, counted from 1.
    :param modified: Whether the result after post-processing is meant.
    :raises AgentyUnexpectedAnswerError: if the server gives fewer rows than it says there are.
    """
    pages = iter_result_pages(transport, job_id, collection=collection, modified=modified, keep_numbers=False)
    with closing(pages):
        for page in pages:
            yield from page


def iter_result_pages(
    transport: Transport, job_id: int, *, collection: int, modified: bool, keep_numbers: bool
) -> Generator[list[dict[str, Any]], None, None]:
    """
    Yield the rows of a result in order, some at once, with the next ones already on their way.

    The pages that came tell how many rows the server gives at once, and how large they are: the next ones are asked
    for in such pieces.

    :param transport: Where to ask.
    :param job_id: The job.
    :param collection: The collection, counted from 1.
    :param modified: Whether the result after post-processing is meant.
    :param keep_numbers: Whether numbers keep their text, as :func:`~airflow_provider_agenty.api.json_rows.decode_rows`
        has it.
    :return: Some rows at once; only an empty result has no row in them.
    :raises AgentyUnexpectedAnswerError: if the pages do not make up one result: rows are missing, or their number
        changes.
    """
    result = _Result(transport, job_id, collection, modified, keep_numbers)
    page = result.read_page(0, RESULT_PAGE)
    yield page.rows
    total, offset = page.total, page.end
    if offset < total and not page.rows:
        raise result.ended_early(page)
    # A page that is shorter than asked for need not be followed by others like it: each piece is asked for in full.
    row_size = page.row_size
    limit = _rows_at_once(row_size)
    count = min(limit, len(page.rows))
    del page  # It may be large.
    pending: deque[Future[_Piece]] = deque()
    try:
        while offset < total or pending:
            while offset < total and len(pending) < _pages_at_once(row_size):
                count = min(count, total - offset)
                pending.append(in_background(result.read_piece, offset, count, limit, total))
                offset += count
            piece = pending.popleft().result()
            row_size = piece.row_size
            limit = _rows_at_once(row_size)
            count = min(limit, max(count, piece.most)) if piece.was_cut else limit
            yield piece.rows
    finally:
        result.is_given_up = True
    if result.has_no_numbers:
        log.warning(
            "The result of job %d holds NaN or Infinity, which are no numbers in JSON: they are texts now.", job_id
        )


def _rows_at_once(row_size: int) -> int:
    return max(1, min(RESULT_PAGE, _PAGE_BYTES // max(1, row_size)))


def _pages_at_once(row_size: int) -> int:
    return max(1, min(PAGES_AHEAD, PAGES_AHEAD * _PAGE_BYTES // max(1, row_size)))
