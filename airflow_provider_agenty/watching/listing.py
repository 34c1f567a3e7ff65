"""What a look at the list of jobs has shown, on its way from the feed to those who watch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from airflow_provider_agenty.api.models import Job


@dataclass(frozen=True)
class Listing:
    """
    What one look at the list of jobs has shown.

    :param jobs: The jobs, by id.
    :param gone: Jobs that were asked for, and are no more.
    :param complete_after: Every job with a higher id than this is among the jobs.
    :param reaches_back: Whether it goes back far enough to begin with.
    """

    jobs: Mapping[int, Job]
    gone: Collection[int]
    complete_after: float
    reaches_back: bool
