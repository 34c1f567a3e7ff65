"""Landing what a job has made, its export or the rows of its result, as two of the hook's methods promise it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_agenty import parameters
from airflow_provider_agenty.airflow_compat import mask_secret
from airflow_provider_agenty.api import result_pages
from airflow_provider_agenty.api.background import in_background
from airflow_provider_agenty.api.session import Session
from airflow_provider_agenty.connection import is_loopback
from airflow_provider_agenty.exceptions import AgentyExportError, AgentyUnexpectedAnswerError
from airflow_provider_agenty.landing import ExportedFile, HttpDownload, land, open_destination
from airflow_provider_agenty.landing.formats import encode_pages
from airflow_provider_agenty.landing.lineage import tell_hook_lineage
from airflow_provider_agenty.landing.progress import readable_size
from airflow_provider_agenty.paths import check_path

if TYPE_CHECKING:
    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.api.request import Transport
    from airflow_provider_agenty.hooks.agenty import AgentyHook
    from airflow_provider_agenty.landing import Destination


@dataclass(frozen=True)
class LandingOptions:
    """What is landed of a job, where and how; the fields are the parameters of the hook's methods, checked."""

    job_id: int
    path: str
    writes: str
    collection: int
    modified: bool
    storage_conn_id: str | None
    overwrite: bool
    verify_rows: bool
    check: Callable[[ExportedFile], None] | None
    spool_folder: str | None
    job_seen: Callable[[Job], None] | None

    @classmethod
    def checked(
        cls,
        job_id: Any,
        path: Any,
        *,
        writes: str,
        collection: Any,
        modified: Any,
        storage_conn_id: Any,
        overwrite: Any,
        verify_rows: Any,
        check: Any,
        spool_folder: Any,
        job_seen: Any,
    ) -> LandingOptions:
        """
        Check the parameters.

        :param writes: What is landed: ``csv``, ``jsonl``, ``parquet`` or ``log``.
        :raises AgentyInputError: naming the one that can't be used.
        """
        parameters.check_function("check", check)
        parameters.check_function("job_seen", job_seen)
        return cls(
            parameters.job_id(job_id),
            check_path(path, writes=writes),
            writes,
            parameters.collection(collection),
            parameters.boolean("modified", modified),
            parameters.storage_conn_id(storage_conn_id),
            parameters.boolean("overwrite", overwrite),
            parameters.boolean("verify_rows", verify_rows),
            check,
            parameters.folder("spool_folder", spool_folder),
            job_seen,
        )

    @property
    def is_log(self) -> bool:
        """Whether the job's log is landed, not a result."""
        return self.writes == "log"


def land_export(hook: AgentyHook, options: LandingOptions, *, filename: str | None) -> ExportedFile:
    """
    Land a file that Agenty makes.

    :param hook: The hook.
    :param options: What, where and how.
    :param filename: The file's name in the link; ``None``: Agenty's own.
    """
    file_type = "logs" if options.is_log else "result"
    destination, job = _open_destination(hook, options)
    expected_rows = (
        hook.count_result(options.job_id, collection=options.collection, modified=options.modified)
        if options.verify_rows and not options.is_log
        else None
    )
    with Session(hook.settings, authenticated=False) as session:
        exported = land(
            HttpDownload(
                lambda: hook.get_export_link(
                    options.job_id,
                    file_type=file_type,
                    collection=options.collection,
                    modified=options.modified,
                    filename=filename,
                ),
                session,
                expected=f"The {file_type} of job {options.job_id}",
                timeout=(hook.settings.connect_timeout, hook.settings.read_timeout),
                secret=mask_secret,
                may_be_empty=options.is_log,
                expected_rows=expected_rows,
                schemes_to_this_machine=_schemes_to_this_machine(hook.base_url),
                log=hook.log,
            ),
            destination,
            job_id=options.job_id,
            collection=None if options.is_log else options.collection,
            count_rows=not options.is_log,
            expected_rows=expected_rows,
            check=options.check,
            log=hook.log,
            spool_folder=options.spool_folder,
        )
    _tell_of(hook, exported, job)
    return exported


def land_result(hook: AgentyHook, transport: Transport, options: LandingOptions, *, column_types: str) -> ExportedFile:
    """
    Land the rows of a result in a format of ours.

    :param hook: The hook.
    :param transport: Where to ask for the pages.
    :param options: What, where and how.
    :param column_types: ``infer`` or ``text``.
    """
    destination, job = _open_destination(hook, options)
    expected_rows = None
    with closing(_pages(transport, options)) as pages:
        beginning: list[list[dict[str, Any]]] = []
        if options.verify_rows:
            # While the first page is on its way: each of the two is a whole round trip.
            total = in_background(
                hook.count_result, options.job_id, collection=options.collection, modified=options.modified
            )
            beginning.append(next(pages))
            expected_rows = total.result()
        exported = land(
            encode_pages(
                chain(beginning, pages),
                options.writes,
                column_types=column_types,
                log=hook.log,
                spool_folder=options.spool_folder,
            ),
            destination,
            job_id=options.job_id,
            collection=options.collection,
            count_rows=options.writes == "csv",
            expected_rows=expected_rows,
            check=options.check,
            log=hook.log,
            spool_folder=options.spool_folder,
        )
    _tell_of(hook, exported, job)
    return exported


def _pages(transport: Transport, options: LandingOptions) -> Generator[list[dict[str, Any]], None, None]:
    """Yield the pages of a result; one that can't be read to its end can't be landed."""
    try:
        yield from result_pages.iter_result_pages(
            transport, options.job_id, collection=options.collection, modified=options.modified, keep_numbers=True
        )
    except AgentyUnexpectedAnswerError as error:
        raise AgentyExportError(f"{error} Nothing was landed.") from None


def _open_destination(hook: AgentyHook, options: LandingOptions) -> tuple[Destination, Job]:
    """Check where something is to be landed, and that it is there: first what needs no request."""
    name_end = ".log" if options.is_log else f"-{options.collection}.{options.writes}"

    @functools.cache
    def finished_job() -> Job:
        job = hook.get_job(options.job_id)
        if options.job_seen is not None:
            options.job_seen(job)
        _refuse_unfinished(job, is_log=options.is_log)
        return job

    destination = open_destination(
        options.path,
        default_name=lambda: f"{finished_job().agent_id or 'agent'}-{options.job_id}{name_end}",
        storage_conn_id=options.storage_conn_id,
        overwrite=options.overwrite,
    )
    return destination, finished_job()


def _refuse_unfinished(job: Job, *, is_log: bool) -> None:
    if is_log and not job.is_terminal:
        raise AgentyExportError(
            f"Job {job.job_id} is {job.status}: its log is landed once the job is over. Wait for it with "
            "AgentyJobSensor."
        )
    if not is_log and not job.is_successful:
        advice = (
            "it has no final result" if job.is_terminal else "its result is not final. Wait for it with AgentyJobSensor"
        )
        raise AgentyExportError(f"Job {job.job_id} is {job.status}: {advice}. Nothing was landed.")


def _schemes_to_this_machine(base_url: str) -> tuple[str, ...]:
    """Say how downloads may lead to this machine: not at all, unless the base URL itself does."""
    parts = urlsplit(base_url)
    if not is_loopback(parts.hostname):
        return ()
    return ("https",) if parts.scheme == "https" else ("https", "http")


def _tell_of(hook: AgentyHook, exported: ExportedFile, job: Job) -> None:
    hook.log.info(
        "Landed %s (%s) at %s, sha256 %s",
        "the log" if exported.rows is None else f"{exported.rows} row{'' if exported.rows == 1 else 's'}",
        readable_size(exported.size),
        exported.path,
        exported.sha256,
    )
    tell_hook_lineage(hook, exported, base_url=hook.base_url, agent_id=job.agent_id, log=hook.log)
