"""From a source to a verified file at its destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.destinations.destination import Destination
from airflow_provider_agenty.landing.download import StartOver
from airflow_provider_agenty.landing.exported_file import ExportedFile
from airflow_provider_agenty.landing.progress import Progress
from airflow_provider_agenty.landing.receiving import Content, receive
from airflow_provider_agenty.log import Log


def land(
    source: Iterable[bytes],
    destination: Destination,
    *,
    job_id: int,
    collection: int | None,
    count_rows: bool,
    expected_rows: int | None = None,
    check: Callable[[ExportedFile], None] | None = None,
    log: Log,
    spool_folder: str | None = None,
) -> ExportedFile:
    """
    Take in content, verify it and publish it, whole or not at all.

    Nothing is made on disk before the source has given its first bytes. Whatever goes wrong, at any time, leaves
    the destination as it was and no temporary file.

    :param source: the content in chunks of bytes. It may raise
        :class:`~airflow_provider_agenty.landing.download.StartOver` to be iterated anew from its first byte. An
        attribute ``length``, if it has one, is the number of bytes to come, as soon as the first chunk is there; an
        attribute ``rows``, if it has one, is how many rows there were, as soon as the last chunk is.
    :param destination: where the file is to appear.
    :param job_id: the job it comes from.
    :param collection: which of the agent's collections, counted from 1; ``None`` where that means nothing.
    :param count_rows: whether the content is CSV with a header line, whose rows are to be counted. Otherwise they are
        as many as the source says.
    :param expected_rows: how many rows there must be: fewer are an error, more a warning. Default ``None``: any.
    :param check: called with the file after verification and before publishing; what it raises goes through.
    :param log: where progress and warnings go.
    :param spool_folder: the local folder for files on their way to an object store; default: the system's
        folder for temporary files.
    :return: the landed file.
    :raises AgentyExportError: if the content is not what it should be, or can't be stored.
    """
    chunks = _begin(source)
    length = getattr(source, "length", None)
    room_needed = None if destination.compressed else length
    with destination.stage(length=room_needed, spool_folder=spool_folder) as staged:
        content: Content | None = None
        while content is None:
            try:
                content = receive(
                    chunks,
                    staged,
                    compress=destination.compressed,
                    count_records=count_rows,
                    progress=Progress(log, length),
                )
                break
            except StartOver:
                pass
            staged.restart()
            chunks = _begin(source)
        exported = ExportedFile(
            path=destination.path,
            size=staged.size,
            rows=_verified_rows(content if count_rows else source, expected_rows, log),
            sha256=content.sha256,
            job_id=job_id,
            collection=collection,
        )
        if check is not None:
            check(exported)
        destination.publish(staged)
    return exported


def _begin(source: Iterable[bytes]) -> Iterator[bytes]:
    while True:
        try:
            chunks = iter(source)
            first = next(chunks, b"")
        except StartOver:
            continue
        return chain((first,), chunks)


def _verified_rows(counted: Content | Iterable[bytes], expected: int | None, log: Log) -> int | None:
    rows: int | None
    if isinstance(counted, Content):
        records = counted.records or 0
        rows = max(0, records - 1)
        # In a file of a single column a blank line is a row with an empty value; elsewhere it is nothing.
        most = max(0, records + counted.blank_records - 1)
    else:
        rows = getattr(counted, "rows", None)
        most = rows or 0
    if rows is None or expected is None:
        return rows
    if most < expected:
        raise AgentyExportError(
            f"The file is incomplete: it has {most} rows where the result has {expected}. Nothing was landed. "
            "Try again; if it stays so, compare the export with the result in Agenty.",
        )
    if rows > expected:
        log.warning("The file has %d rows, the result only %d: it was landed all the same.", rows, expected)
        return rows
    return expected
