"""Content taken in once: written, hashed and counted as it comes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_provider_agenty.landing.count_records import RecordCounter
from airflow_provider_agenty.landing.progress import Progress
from airflow_provider_agenty.landing.temporary_file import StagedFile

_GZIP = 31  # zlib's number for a gzip header and trailer; the header it writes carries no time and no name


@dataclass(frozen=True)
class Content:
    """
    What is known about content that was taken in.

    :param sha256: its SHA-256, before compression.
    :param records: its CSV records, header included and blank lines not; ``None`` if they were not counted.
    :param blank_records: its blank lines, which are records to a file of a single column.
    """

    sha256: str
    records: int | None
    blank_records: int


def receive(
    chunks: Iterable[bytes], staged: StagedFile, *, compress: bool, count_records: bool, progress: Progress
) -> Content:
    """
    Write content to a temporary file while it is hashed and counted.

    :param chunks: the content.
    :param staged: the empty file.
    :param compress: whether to write it gzipped.
    :param count_records: whether it is CSV whose records are to be counted.
    :param progress: told of each chunk.
    :return: what is known about it.
    :raises AgentyExportError: if it can't be written.
    """
    digest = hashlib.sha256()
    counter = RecordCounter() if count_records else None
    compressor = zlib.compressobj(wbits=_GZIP) if compress else None
    for chunk in chunks:
        staged.write(compressor.compress(chunk) if compressor else chunk)
        digest.update(chunk)
        if counter:
            counter.update(chunk)
        progress.advance(len(chunk))
    if compressor:
        staged.write(compressor.flush())
    if counter:
        counter.finish()
    return Content(
        sha256=digest.hexdigest(),
        records=counter.records if counter else None,
        blank_records=counter.blank_records if counter else 0,
    )
