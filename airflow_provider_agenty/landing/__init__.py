"""
From a download to a verified file at its destination.

Knows nothing of Agenty's API: :func:`open_destination` checks a place, :class:`HttpDownload` reads from a
perishable link, :func:`land` brings any source of bytes to a place, whole or not at all.
"""

from __future__ import annotations

from airflow_provider_agenty.landing.count_records import RecordCounter
from airflow_provider_agenty.landing.destinations.destination import Destination
from airflow_provider_agenty.landing.destinations.places import open_destination
from airflow_provider_agenty.landing.download import HttpDownload, StartOver
from airflow_provider_agenty.landing.exported_file import ExportedFile
from airflow_provider_agenty.landing.land_file import land

__all__ = [
    "Destination",
    "ExportedFile",
    "HttpDownload",
    "RecordCounter",
    "StartOver",
    "land",
    "open_destination",
]
