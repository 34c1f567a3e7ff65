"""
The upload of a large file to S3 in parts, by the calls of s3fs.

Two things are not as in s3fs's own upload: the next part begins when any part has arrived, not when several have; and
an upload whose parts carry checksums, as they do unless the user has turned that off, names their algorithm when it
begins and hands all of them in when it ends, so that S3 checks the object as a whole too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

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
    :param at_once: how many parts are on their way, and in memory, at the same time.
    :param only_if_absent: whether S3 is to refuse it if the key is there already.
    :param callback: an fsspec callback, told of each part that has arrived; what it raises ends the upload.
    :raises Exception: what s3fs raises, and ``FileExistsError`` where S3 refused to replace the key.
    """
    bucket, name, _ = files.split_path(key)
    upload = {"Bucket": bucket, "Key": name}
    begun = await files._call_s3("create_multipart_upload", **upload, **_checksum_algorithm(files))
    upload["UploadId"] = begun["UploadId"]
    condition = {"IfNoneMatch": "*"} if only_if_absent else {}
    try:
        parts = await _send(files, upload, _pieces(path, part_size), at_once=at_once, callback=callback)
        await files._call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts}, **condition)
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


def _pieces(path: Path, part_size: int) -> Generator[tuple[int, bytes], None, None]:
    with path.open("rb") as file:
        number = 0
        while data := file.read(part_size):
            number += 1
            yield number, data


async def _send(
    files: Any, upload: dict[str, str], pieces: Generator[tuple[int, bytes], None, None], *, at_once: int, callback: Any
) -> list[dict[str, Any]]:
    """Send the pieces, several at once; when one fails, wait for those on their way, which an abort could miss."""
    parts: dict[int, dict[str, Any]] = {}

    async def send_one_after_another() -> None:
        try:
            for number, data in pieces:
                answer = await files._call_s3("upload_part", **upload, PartNumber=number, Body=data)
                parts[number] = _part(number, answer)
                callback.relative_update(len(data))
        finally:
            pieces.close()  # a failure ends the others after their part

    ends = await asyncio.gather(*(send_one_after_another() for _ in range(at_once)), return_exceptions=True)
    for end in ends:
        if end is not None:
            raise end
    return [part for _, part in sorted(parts.items())]


def _part(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
    return {"PartNumber": number, "ETag": answer["ETag"], **checksums}
