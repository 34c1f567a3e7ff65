"""Tells Airflow of a landed file: with the events of its assets, and by its lineage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_agenty.airflow_compat import BaseHook, asset_types, hook_lineage
from airflow_provider_agenty.assets.agenty import SCHEME

if TYPE_CHECKING:
    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.landing.land import ExportedFile
    from airflow_provider_agenty.log import Log

# The names under which Airflow's providers know schemes that fsspec knows under several.
_USUAL_SCHEME = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}


def extra_of(exported: ExportedFile, job: Job | None = None) -> dict[str, Any]:
    """Return what is said of a landed file, and of its job if that is known, with its assets, in JSON primitives."""
    extra = {
        "rows": exported.rows,
        "bytes": exported.size,
        "sha256": exported.sha256,
        "job_id": exported.job_id,
        "collection": exported.collection,
        **({} if job is None else {"credits": job.pages_credit}),
    }
    return extra if exported.filled is None else {**extra, "filled": exported.filled}


def tell_outlets(
    outlets: Iterable[Any], events: Any, exported: ExportedFile, log: Log, *, job: Job | None = None
) -> None:
    """
    Put what is known of a landed file into the events of a task's asset outlets.

    Other extras in the events stay. An alias is left alone: the DAG says which assets it stands for.
    Nothing here fails the task: the file is there.
    """
    for outlet in outlets:
        if isinstance(outlet, asset_types()):
            try:
                # A reference is looked up in Airflow's database.
                events[outlet].extra.update(extra_of(exported, job))
            except Exception as error:
                log.warning("The event of the outlet %s has no details: %s", outlet, error)


def tell_hook_lineage(hook: BaseHook, exported: ExportedFile, job: Job, *, base_url: str, log: Log) -> None:
    """Tell Airflow's hook lineage, if anybody reads it, that a file came from an agent; this fails no task."""
    try:
        lineage = hook_lineage()
        if lineage is None:
            return
        if job.agent_id:
            lineage.add_input(hook, scheme=SCHEME, kwargs={"host": _host(base_url), "agent_id": job.agent_id})
        lineage.add_output(hook, uri=file_uri(exported.path), extra=extra_of(exported, job))
    except Exception as error:
        log.warning("The lineage of %s was not recorded: %s", exported.path, error)


def _host(base_url: str) -> str:
    return urlsplit(base_url).netloc.rpartition("@")[2]


def file_uri(path: str) -> str:
    """Return where a file was landed as the URI of an asset, which names no connection and no login."""
    scheme, is_url, place = path.partition("://")
    if not is_url:
        scheme, place = "file", path
    elif "@" in (bucket := place.partition("/")[0]):
        place = place[len(bucket.rpartition("@")[0]) + 1 :]
    # In a URI these would end the path.
    place = place.replace("?", "%3F").replace("#", "%23")
    return f"{_USUAL_SCHEME.get(scheme.lower(), scheme.lower())}://{place}"
