"""
The upload of a large file to S3 in parts, by the calls of s3fs.

Three things are not as in s3fs's own upload. The next part begins when any part has arrived, not when several have. An
upload whose parts carry checksums, as they do unless the user has turned that off, names their algorithm when it begins
and hands all of them in when it ends, so that S3 checks the object as a whole too. And where that helps, half of the
parts go through another client.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Generator, Iterator
from pathlib import Path
from typing import Any

from airflow_provider_agenty.landing.s3_another_client import another_client_helps, with_another_client

_CHECKSUM_OF_CLIENTS = "CRC32"  # what the AWS clients send where nobody chose another one


async def upload_in_parts(
    files: Any, path: Path, key: str, *, part_size: int, at_once: int, only_if_absent: bool, callback: Any
) -> None:
    """
    Upload a file, or leave nothing.

    :param files: the ``s3fs.S3FileSystem``; this runs in its event loop.
    :param path: the local file, which must not be empty.
    :param key: the object's name, with its bucket.
    :param part_size: the size of a part in bytes; only the last one may be smaller.
    :param at_once: how many parts are on their way, and in memory, at the same time; at least 2.
    :param only_if_absent: whether S3 is to refuse it if the key is there already.
    :param callback: an fsspec callback, told of each part that has arrived, by one thread at a time; what it raises
        ends the upload.
    :raises Exception: what s3fs raises, and ``FileExistsError`` where S3 refused to replace the key.
    """
    bucket, name, _ = files.split_path(key)
    upload = {"Bucket": bucket, "Key": name}
    begun = await files._call_s3("create_multipart_upload", **upload, **_checksum_algorithm(files))
    upload["UploadId"] = begun["UploadId"]
    condition = {"IfNoneMatch": "*"} if only_if_absent else {}
    try:
        with contextlib.closing(_pieces(path, part_size)) as pieces:
            parts = _Parts(upload, pieces, callback)
            await _send(files, parts, at_once)
        arrived = {"Parts": parts.arrived()}
        await files._call_s3("complete_multipart_upload", **upload, MultipartUpload=arrived, **condition)
    except BaseException:
        with contextlib.suppress(Exception):
            await files._call_s3("abort_multipart_upload", **upload)
        raise


def _checksum_algorithm(files: Any) -> dict[str, str]:
    """Name the algorithm that the parts will carry a checksum of; none where they carry none or the user named it."""
    # A botocore that knows no such setting sends none.
    when = getattr(files.s3.meta.config, "request_checksum_calculation", "when_required")
    if when != "when_supported" or "ChecksumAlgorithm" in files.s3_additional_kwargs:
        return {}
    return {"ChecksumAlgorithm": _CHECKSUM_OF_CLIENTS}


async def _send(files: Any, parts: _Parts, at_once: int) -> None:
    if not await another_client_helps(files):
        await parts.send(files, at_once)
        return
    elsewhere = at_once // 2
    await _all_of(
        parts.send(files, at_once - elsewhere),
        with_another_client(files, lambda other: parts.send(other, elsewhere)),
    )


class _Parts:
    """
    The parts of an upload. Each is sent once, by whoever comes for it first, in whichever event loop.

    :param upload: the upload, as S3 is told of it.
    :param pieces: what the parts hold.
    :param callback: an fsspec callback.
    """

    def __init__(self, upload: dict[str, str], pieces: Iterator[bytes], callback: Any) -> None:
        self._upload = upload
        self._pieces = enumerate(pieces, start=1)
        self._callback = callback
        self._arrived: list[dict[str, Any]] = []
        self._ended = False
        self._lock = threading.Lock()

    async def send(self, files: Any, at_once: int) -> None:
        """
        Send parts until there are no more or one has failed, here or elsewhere.

        When one fails, those on their way are waited for, because an abort could miss them.

        :param files: the file system to send them by, in whose event loop this runs.
        :param at_once: how many are on their way from here at the same time.
        :raises Exception: what the file system raises.
        """
        await _all_of(*(self._send_one_after_another(files) for _ in range(at_once)))

    async def _send_one_after_another(self, files: Any) -> None:
        try:
            while piece := self._next():
                number, data = piece
                answer = await files._call_s3("upload_part", **self._upload, PartNumber=number, Body=data)
                self._note(number, answer, len(data))
        finally:
            self._ended = True  # a failure ends the others after their part

    def _next(self) -> tuple[int, bytes] | None:
        with self._lock:
            return None if self._ended else next(self._pieces, None)

    def _note(self, number: int, answer: dict[str, Any], size: int) -> None:
        checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        with self._lock:
            self._arrived.append({"PartNumber": number, "ETag": answer["ETag"], **checksums})
            self._callback.relative_update(size)

    def arrived(self) -> list[dict[str, Any]]:
        """Give what S3 wants to be told of the parts in the end, in their order."""
        return sorted(self._arrived, key=lambda part: part["PartNumber"])


def _pieces(path: Path, size: int) -> Generator[bytes, None, None]:
    with path.open("rb") as file:
        while data := file.read(size):
            yield data


async def _all_of(*awaitables: Awaitable[None]) -> None:
    """Wait for all, also when one fails, and raise what failed first in their order."""
    for end in await asyncio.gather(*awaitables, return_exceptions=True):
        if end is not None:
            raise end
