"""
Whether a verified result is as good as the DAG asks: its fields are filled, and it has not lost too many rows.

Each check is a number that was measured, and the least that it may be. They are compared exactly: a share is taken as
the decimal number that stands in the DAG.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_agenty.api import result_pages
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.pages import iter_jobs
from airflow_provider_agenty.api.request import Transport
from airflow_provider_agenty.api.validation import clean_text
from airflow_provider_agenty.exceptions import AgentyNotFoundError, AgentyQualityError
from airflow_provider_agenty.landing.filled_fields import FilledFields
from airflow_provider_agenty.landing.formats.json_lines import Page
from airflow_provider_agenty.landing.temporary_file import StagedFile
from airflow_provider_agenty.log import Log

if TYPE_CHECKING:
    from airflow_provider_agenty.landing.land import LandingOptions

_COLUMNS_SHOWN = 20
_NAME_CHARACTERS_SHOWN = 100
_JOBS_AT_ONCE = 100  # the previous job is most often the second in the list
_MOST_JOBS = 2_000  # a server may go on for ever


class Quality:
    """
    Measures one result, and compares it with what the DAG asks.

    :param counts_file: Whether the temporary file is read once more, as CSV. Otherwise the rows come by
        :meth:`counted`.
    """

    def __init__(self, transport: Transport, job: Job, options: LandingOptions, log: Log, *, counts_file: bool) -> None:
        self._transport = transport
        self._job = job
        self._options = options
        self._required = options.required_fields or {}
        self._log = log
        self._counts_file = counts_file
        self._fields = FilledFields(self._required)

    def counted(self, pages: Iterator[Page]) -> Iterator[Page]:
        """Give the pages of a result back, with the filled fields counted if any is required."""
        for page in pages:
            if self._required:
                self._fields.count_page(page)
            yield page

    def measure(self, staged: StagedFile, *, compressed: bool, rows: int | None) -> dict[str, float | None] | None:
        """Return the share of rows in which each required field is filled, ``None`` for each if there are no rows."""
        if not self._required:
            return None
        if self._counts_file:
            self._fields.count_csv(staged, compressed=compressed)
        return {name: filled / rows if rows else None for name, filled in self._fields.filled.items()}

    def check(self, rows: int) -> None:
        """
        Compare what was measured with what is asked.

        :raises AgentyQualityError: if it is not good enough.
        """
        # Without rows, only the header of a CSV names columns.
        if rows or self._fields.columns:
            self._check_columns()
        self._check_shares(rows)
        if self._options.max_row_drop is not None:
            self._check_row_drop(self._options.max_row_drop, rows)

    def _check_columns(self) -> None:
        missing = self._fields.missing
        if not missing:
            return
        columns = self._fields.columns
        shown = ", ".join(map(self._shown, islice(columns, _COLUMNS_SHOWN)))
        if len(columns) > _COLUMNS_SHOWN:
            shown += ", …"
        named = ", ".join(map(self._shown, islice(missing, _COLUMNS_SHOWN)))
        raise AgentyQualityError(
            f"The result of job {self._job.job_id} has no column {named}, which required_fields names. "
            f"It has {shown or 'no columns'}. Nothing was landed. Correct the name, or look at the agent."
        )

    def _check_shares(self, rows: int) -> None:
        required = self._required
        failed = [
            f"{self._shown(name)} in {filled} of {rows} ({_rounded_down(filled, rows)}, required is {required[name]})"
            for name, filled in self._fields.filled.items()
            if rows and filled < _exact(required[name]) * rows
        ]
        if failed:
            raise AgentyQualityError(
                f"The result of job {self._job.job_id} has too few rows with these fields filled: {', '.join(failed)}. "
                "Nothing was landed. Look at the agent, or ask for a smaller share."
            )

    def _check_row_drop(self, max_row_drop: float, rows: int) -> None:
        previous = self._previous_rows()
        if previous is None:
            return
        job_id, before = previous
        least = (1 - _exact(max_row_drop)) * before
        if rows < least:
            raise AgentyQualityError(
                f"The result of job {self._job.job_id} has {rows} rows, that of the agent's previous job {job_id} has "
                f"{before}: max_row_drop={max_row_drop} asks for at least {math.ceil(least)}. Nothing was landed. If "
                "the result is right, land it without max_row_drop."
            )
        self._log.info("Job %d has %d rows, the previous job %d has %d", self._job.job_id, rows, job_id, before)

    def _previous_rows(self) -> tuple[int, int] | None:
        """Return the agent's previous completed job and how many rows its result has; ``None`` if that can't be had."""
        job_id, agent_id = self._job.job_id, self._job.agent_id
        jobs = iter_jobs(self._transport, agent_id=agent_id, limit=_JOBS_AT_ONCE) if agent_id else iter(())
        # Agenty's filter by agent is not taken on trust.
        completed = (
            each.job_id for each in islice(jobs, _MOST_JOBS) if each.is_successful and each.agent_id == agent_id
        )
        previous = next((each for each in completed if each < job_id), None)
        if previous is None:
            self._log.info(
                "The rows of job %d are not compared: of the newest %d jobs of its agent, none completed before it",
                *(job_id, _MOST_JOBS),
            )
            return None
        try:
            rows = self._rows_of(previous)
        except AgentyNotFoundError:
            self._log.info("The rows of job %d are not compared: the result of job %d is gone", job_id, previous)
            return None
        return previous, rows

    def _rows_of(self, job_id: int) -> int:
        options = self._options
        return result_pages.read_result_total(
            self._transport, job_id, collection=options.collection, modified=options.modified
        )

    def _shown(self, name: str) -> str:
        return repr(clean_text(name, key=self._transport.settings.key, longest=_NAME_CHARACTERS_SHOWN))


def _exact(share: float) -> Fraction:
    return Fraction(repr(share))


def _rounded_down(filled: int, rows: int) -> float:
    # So that no share looks as if it were enough.
    return filled * 10_000 // rows / 10_000
