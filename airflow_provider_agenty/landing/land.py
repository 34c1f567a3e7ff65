"""From what Agenty has of a job to a verified file at its destination, whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_agenty import landing_guards, metrics, parameters
from airflow_provider_agenty.airflow_compat import mask_secret
from airflow_provider_agenty.api import result_pages
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.request import Transport
from airflow_provider_agenty.api.session import Session
from airflow_provider_agenty.connection import is_loopback
from airflow_provider_agenty.exceptions import AgentyExportError, AgentyUnexpectedAnswerError
from airflow_provider_agenty.landing.count_records import RecordCounter
from airflow_provider_agenty.landing.destinations import Destination, open_destination
from airflow_provider_agenty.landing.download import HttpDownload
from airflow_provider_agenty.landing.formats import EncodedRows
from airflow_provider_agenty.landing.lineage import tell_hook_lineage
from airflow_provider_agenty.landing.progress import Progress, readable_size
from airflow_provider_agenty.landing.quality import Quality
from airflow_provider_agenty.landing.temporary_file import StagedFile
from airflow_provider_agenty.log import Log
from airflow_provider_agenty.paths import check_path

if TYPE_CHECKING:
    from airflow_provider_agenty.hooks.connected import ConnectedHook

_GZIP = 31  # zlib's number for a gzip header and trailer; the header it writes carries no time and no name


@dataclass(frozen=True)
class ExportedFile:
    """
    A verified file at its destination.

    :param path: Its place: an absolute local path, or the URL it was landed at.
    :param size: Its size there, in bytes (compressed, when it was compressed on the way).
    :param rows: The number of its rows, the header not counted; ``None`` for a log.
    :param sha256: SHA-256 of its content before compression, in hexadecimal digits.
    :param job_id: The job it came from.
    :param collection: The agent's collection, counted from 1; ``None`` for a log.
    :param filled: The share of rows in which each required field is filled, ``None`` for each if there are no rows;
        ``None`` where no field is required.
    """

    path: str
    size: int
    rows: int | None
    sha256: str
    job_id: int
    collection: int | None
    filled: dict[str, float | None] | None = field(default=None, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON primitives, for XCom and asset events; ``filled`` only where a field is required."""
        values = asdict(self)
        if self.filled is None:
            del values["filled"]
        return values


@dataclass(frozen=True)
class LandingOptions:
    """The checked parameters of the hook's methods that land."""

    job_id: int
    path: str
    writes: str  # csv, jsonl, parquet or log
    collection: int = 1
    modified: bool = True
    storage_conn_id: str | None = None
    overwrite: bool = True
    verify_rows: bool = True
    check: Callable[[ExportedFile], None] | None = None
    spool_folder: str | None = None
    job_seen: Callable[[Job], None] | None = None
    required_fields: dict[str, float] | None = None
    max_row_drop: float | None = None

    @classmethod
    def checked(cls, *, writes: str, **given: Any) -> LandingOptions:
        """Check the parameters; an :class:`AgentyInputError` names the one that can't be used."""
        parameters.check_function("check", given["check"])
        parameters.check_function("job_seen", given["job_seen"])
        required_fields = landing_guards.required_fields(given["required_fields"])
        max_row_drop = landing_guards.max_row_drop(given["max_row_drop"])
        landing_guards.refuse_for_logs(writes=writes, required_fields=required_fields, max_row_drop=max_row_drop)
        return cls(
            job_id=parameters.job_id(given["job_id"]),
            path=check_path(given["path"], writes=writes),
            writes=writes,
            collection=parameters.collection(given["collection"]),
            modified=parameters.boolean("modified", given["modified"]),
            storage_conn_id=parameters.storage_conn_id(given["storage_conn_id"]),
            overwrite=parameters.boolean("overwrite", given["overwrite"]),
            verify_rows=parameters.boolean("verify_rows", given["verify_rows"]),
            check=given["check"],
            spool_folder=parameters.folder("spool_folder", given["spool_folder"]),
            job_seen=given["job_seen"],
            required_fields=required_fields,
            max_row_drop=max_row_drop,
        )

    @property
    def is_log(self) -> bool:
        """Whether the job's log is landed, not a result."""
        return self.writes == "log"


def land_export(
    hook: ConnectedHook, transport: Transport, options: LandingOptions, *, get_link: Callable[[], str]
) -> ExportedFile:
    """Land a file that Agenty makes; the function fetches a link to it."""
    began = time.monotonic()
    destination, job = _open_destination(transport, options)
    expected_rows = _expected_rows(transport, options)
    settings = transport.settings
    with Session(settings, authenticated=False) as session:
        download = HttpDownload(
            get_link,
            session,
            expected=f"The {'logs' if options.is_log else 'result'} of job {options.job_id}",
            timeout=(settings.connect_timeout, settings.read_timeout),
            secret=mask_secret,
            may_be_empty=options.is_log or expected_rows == 0,
            expected_rows=expected_rows,
            schemes_to_this_machine=_schemes_to_this_machine(settings.base_url),
            log=hook.log,
        )
        quality = Quality(transport, job, options, hook.log, counts_file=True)
        exported = land(download, destination, options, expected_rows=expected_rows, quality=quality, log=hook.log)
    _tell_of(hook, exported, job, seconds=time.monotonic() - began)
    return exported


def land_result(
    hook: ConnectedHook, transport: Transport, options: LandingOptions, *, column_types: str
) -> ExportedFile:
    """Land the rows of a result in a format of ours; ``column_types`` is ``infer`` or ``text``."""
    began = time.monotonic()
    destination, job = _open_destination(transport, options)
    expected_rows = _expected_rows(transport, options)
    quality = Quality(transport, job, options, hook.log, counts_file=False)
    with closing(_pages(transport, options)) as pages:
        encoded = EncodedRows(
            quality.counted(pages),
            options.writes,
            column_types=column_types,
            log=hook.log,
            spool_folder=options.spool_folder,
        )
        exported = land(encoded, destination, options, expected_rows=expected_rows, quality=quality, log=hook.log)
    _tell_of(hook, exported, job, seconds=time.monotonic() - began)
    return exported


def _open_destination(transport: Transport, options: LandingOptions) -> tuple[Destination, Job]:
    """Check where something is to be landed, and that it is there: first what needs no request."""
    name_end = ".log" if options.is_log else f"-{options.collection}.{options.writes}"

    @functools.cache
    def finished_job() -> Job:
        job = transport.read(f"/jobs/{options.job_id}").job(options.job_id)
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
            f"Job {job.job_id} is {job.status}: its log is not complete. Nothing was landed. Wait for the job with "
            "AgentyJobSensor."
        )
    if not is_log and not job.is_successful:
        problem, advice = (
            ("it has no final result", "Start another job, or land its log with file_type='logs'.")
            if job.is_terminal
            else ("its result is not final", "Wait for the job with AgentyJobSensor.")
        )
        raise AgentyExportError(f"Job {job.job_id} is {job.status}: {problem}. Nothing was landed. {advice}")


def _expected_rows(transport: Transport, options: LandingOptions) -> int | None:
    if options.is_log or not options.verify_rows:
        return None
    return result_pages.read_result_total(
        transport, options.job_id, collection=options.collection, modified=options.modified
    )


def _schemes_to_this_machine(base_url: str) -> tuple[str, ...]:
    """Say how downloads may lead to this machine: not at all, unless the base URL itself does."""
    parts = urlsplit(base_url)
    if not is_loopback(parts.hostname):
        return ()
    return ("https",) if parts.scheme == "https" else ("https", "http")


def _pages(transport: Transport, options: LandingOptions) -> Generator[list[dict[str, Any]], None, None]:
    """Yield the pages of a result; one that can't be read to its end can't be landed."""
    try:
        yield from result_pages.iter_result_pages(
            transport, options.job_id, collection=options.collection, modified=options.modified, keep_numbers=True
        )
    except AgentyUnexpectedAnswerError as error:
        raise AgentyExportError(f"{error} Nothing was landed.") from None


def _tell_of(hook: ConnectedHook, exported: ExportedFile, job: Job, *, seconds: float) -> None:
    hook.log.info(
        "Landed %s (%s) at %s, sha256 %s",
        "the log" if exported.rows is None else f"{exported.rows} row{'' if exported.rows == 1 else 's'}",
        readable_size(exported.size),
        exported.path,
        exported.sha256,
    )
    metrics.count_landed(exported, seconds, agent_id=job.agent_id, conn_id=hook.agenty_conn_id)
    tell_hook_lineage(hook, exported, job, base_url=hook.base_url, log=hook.log)


def land(
    source: Iterable[bytes | None],
    destination: Destination,
    options: LandingOptions,
    *,
    expected_rows: int | None = None,
    quality: Quality | None = None,
    log: Log,
) -> ExportedFile:
    """
    Take in content, verify it and publish it, whole or not at all. Nothing is made on disk before its first bytes.

    :param source: Chunks of the content; ``None`` among them says that it begins anew. It may have a ``length`` in
        bytes, known with the first chunk, and ``rows``, known with the last. Those of CSV are counted.
    :param expected_rows: The number of rows that there must be: fewer are an error, more a warning. Default: any.
    :param quality: Decides on the verified content, after ``options.check``. Default: nothing is asked.
    """
    chunks = iter(source)
    first = next(chunks, b"")
    length = getattr(source, "length", None)
    room_needed = None if destination.compressed else length
    with destination.stage(length=room_needed, spool_folder=options.spool_folder) as staged:
        count_rows = options.writes == "csv"
        progress = Progress(log, length)
        sha256, counter = _receive(chain((first,), chunks), staged, destination.compressed, count_rows, progress)
        rows = most = getattr(source, "rows", None)
        if count_rows:
            rows = max(0, counter.records - 1)
            # In a file of a single column a blank line is a row with an empty value; elsewhere it is nothing.
            most = max(0, counter.records + counter.blank_records * counter.has_single_column - 1)
        if rows is not None and expected_rows is not None:
            rows = _verified_rows(rows, most or 0, expected_rows, options.job_id, log)
        collection = None if options.is_log else options.collection
        filled = quality.measure(staged, compressed=destination.compressed, rows=rows) if quality else None
        exported = ExportedFile(destination.path, staged.size, rows, sha256, options.job_id, collection, filled)
        if options.check is not None:
            options.check(exported)
        if quality is not None and rows is not None:
            quality.check(rows)
        destination.publish(staged)
    return exported


def _receive(
    chunks: Iterator[bytes | None], staged: StagedFile, compress: bool, count_rows: bool, progress: Progress
) -> tuple[str, RecordCounter]:
    """Write content to the empty temporary file; return its SHA-256 before compression, and its records."""
    digest, counter, compressor = hashlib.sha256(), RecordCounter(), zlib.compressobj(wbits=_GZIP)
    for chunk in chunks:
        if chunk is None:
            staged.restart()
            return _receive(chunks, staged, compress, count_rows, progress.anew())
        staged.write(compressor.compress(chunk) if compress else chunk)
        digest.update(chunk)
        if count_rows:
            counter.update(chunk)
        progress.advance(len(chunk))
    if compress:
        staged.write(compressor.flush())
    counter.finish()
    return digest.hexdigest(), counter


def _verified_rows(rows: int, most: int, expected: int, job_id: int, log: Log) -> int:
    if most < expected:
        raise AgentyExportError(
            f"The export of job {job_id} is incomplete: it has {most} rows, and the result has {expected}. Nothing was "
            "landed. Try again. If it happens again, compare the export with the result in Agenty."
        )
    if rows > expected:
        log.warning(
            "The export of job %d has %d rows, and the result has %d. The export was landed all the same",
            *(job_id, rows, expected),
        )
        return rows
    return expected
