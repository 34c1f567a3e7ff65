"""The rows of a result, which come in pages: read by what a page holds, never by what was asked for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

from airflow_provider_agenty.api.background import in_background
from airflow_provider_agenty.api.json_rows import UnreadableRowsError, decode_rows
from airflow_provider_agenty.api.pages import rows_and_total
from airflow_provider_agenty.api.request import Transport
from airflow_provider_agenty.api.validation import holds_too_many_values
from airflow_provider_agenty.exceptions import AgentyAnswerTooLargeError, AgentyUnexpectedAnswerError

log = logging.getLogger(__name__)

RESULT_PAGE = 2500
"""Rows in one page of a result. Agenty gives no more, and may give fewer."""

PAGES_AHEAD = 12
"""Pages of a result that are fetched at once, and so are in memory."""

_PAGE_BYTES = 5 * 1024 * 1024
"""The size of a page, roughly. Larger rows are asked for in smaller pages, very large ones in fewer pages at once."""

_FEWER = 4
"""The factor by which fewer rows are asked for where the answer was too large."""

Rows = list[dict[str, Any]]


class _Result:
    """A result that is read in pieces, several at once, and what its pages have told so far."""

    def __init__(self, transport: Transport, job_id: int, collection: int, modified: bool, keep_numbers: bool) -> None:
        self._transport = transport
        self._job_id = job_id
        self._parameters = {"collection": collection, "modified": int(modified)}
        self._keep_numbers = keep_numbers
        self._row_bytes = 1
        self._longest_page = 1
        self.total: int | None = None
        self.has_no_numbers = False
        self.is_given_up = False

    @property
    def limit(self) -> int:
        """The number of rows to ask for at once."""
        return max(1, min(RESULT_PAGE, _PAGE_BYTES // self._row_bytes))

    @property
    def piece(self) -> int:
        """The number of rows that one request will probably give: the server may give fewer than asked for."""
        return min(self.limit, self._longest_page)

    @property
    def pages_at_once(self) -> int:
        """The largest number of pages in memory."""
        return max(1, min(PAGES_AHEAD, PAGES_AHEAD * _PAGE_BYTES // self._row_bytes))

    def read_piece(self, offset: int, count: int) -> Rows:
        """Return exactly so many rows, in as many requests as the server makes of it."""
        rows: Rows = []
        limit = self.limit
        while len(rows) < count and not self.is_given_up:
            page = self.read_page(offset + len(rows), limit)
            if not page:
                raise self.ended_early(offset + len(rows))
            rows += page
            limit = min(self.limit, max(1, count - len(rows)))
        return rows[:count]

    def read_page(self, offset: int, limit: int) -> Rows:
        """Return the rows of one page, fewer than the limit where as many are too large."""
        while True:
            try:
                return self._check(offset, *self._read_page(offset, limit))
            except AgentyAnswerTooLargeError:
                if limit == 1:
                    raise
                limit = max(1, limit // _FEWER)

    def _check(self, offset: int, rows: Rows, total: int, size: int) -> Rows:
        """Return the rows of a page that fits to the others."""
        if self.total is None:
            self.total = total
        if total != self.total:
            raise AgentyUnexpectedAnswerError(
                f"The result of job {self._job_id} changed while it was read: it had {self.total} rows and has "
                f"{total} now. Read it again."
            )
        if rows and offset + len(rows) > total:
            raise AgentyUnexpectedAnswerError(
                f"The result of job {self._job_id} has {total} rows by Agenty's count, but Agenty sent "
                f"{offset + len(rows)}. Read it again. If it happens again, tell Agenty."
            )
        self._row_bytes = max(1, size // max(1, len(rows)))
        self._longest_page = max(self._longest_page, len(rows))
        return rows

    def _read_page(self, offset: int, limit: int) -> tuple[Rows, int, int]:
        """Return the rows of a page, how many the result has, and the bytes of the page."""
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
        return rows, total, len(answer.body)

    def ended_early(self, offset: int) -> AgentyUnexpectedAnswerError:
        """Make the error that says that there is a page without rows before the end."""
        return AgentyUnexpectedAnswerError(
            f"The result of job {self._job_id} ended at row {offset} of {self.total}: Agenty answered with an "
            "empty page. Read it again."
        )


def read_result_total(transport: Transport, job_id: int, *, collection: int, modified: bool) -> int:
    """Return how many rows a result has."""
    result = _Result(transport, job_id, collection, modified, keep_numbers=False)
    result.read_page(0, 1)
    return result.total or 0


def iter_result(transport: Transport, job_id: int, *, collection: int, modified: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a result in order; a number that fits neither into 64 bits nor into a float is its text."""
    pages = iter_result_pages(transport, job_id, collection=collection, modified=modified, keep_numbers=False)
    with closing(pages):
        for page in pages:
            yield from page


def iter_result_pages(
    transport: Transport, job_id: int, *, collection: int, modified: bool, keep_numbers: bool
) -> Generator[Rows, None, None]:
    """
    Yield the rows of a result in order, some at once, with the next ones already on their way.

    :param keep_numbers: Whether numbers keep their text, as :func:`decode_rows` has it.
    :raises AgentyUnexpectedAnswerError: if the pages do not make up one result: rows are missing, or their number
        changes.
    """
    result = _Result(transport, job_id, collection, modified, keep_numbers)
    rows = result.read_page(0, RESULT_PAGE)
    yield rows
    offset, total = len(rows), result.total or 0
    if total and not rows:
        raise result.ended_early(0)
    del rows  # They may be large.
    pending: deque[Future[Rows]] = deque()
    try:
        while offset < total or pending:
            while offset < total and len(pending) < result.pages_at_once:
                count = min(result.piece, total - offset)
                pending.append(in_background(result.read_piece, offset, count))
                offset += count
            yield pending.popleft().result()
    finally:
        result.is_given_up = True
    if result.has_no_numbers:
        log.warning(
            "The result of job %d holds NaN or Infinity, which JSON does not have. They are landed as text", job_id
        )
