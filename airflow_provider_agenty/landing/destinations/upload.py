"""The upload of a temporary file by the file system's own ``put_file``, which aborts what an interruption ends."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from fsspec.callbacks import Callback  # type: ignore[import-untyped]

from airflow_provider_agenty.landing.temporary_file import StagedFile

_PARTS_AT_ONCE = 4  # with the size of a part this bounds the memory of an upload
_PART_SIZE = 8 * 1024 * 1024
_MAX_PARTS = 10_000  # what S3 takes
_SECONDS_TO_CLEAN_UP = 30.0


class _InterruptibleCallback(Callback):  # type: ignore[misc]
    """Fails an interrupted upload when its next part has arrived, which makes the file system abort it."""

    interrupted = False

    def call(self, *_: Any, **__: Any) -> None:
        # When the last part has arrived, some stores show the file already.
        if self.interrupted and self.value != self.size:
            raise InterruptedError("the upload was interrupted")


def upload(files: Any, staged: StagedFile, key: str, *, only_if_absent: bool) -> None:
    """
    Upload a file. When this is interrupted, the file system gets 30 seconds to clean up.

    :param files: the fsspec file system to upload to.
    :param staged: the file.
    :param key: its name there.
    :param only_if_absent: whether the store has to refuse it if the key exists; see :func:`can_refuse_to_replace`.
    :raises Exception: what the file system raises.
    """
    callback = _InterruptibleCallback()
    options = _options(files, staged.size, only_if_absent=only_if_absent)
    # A signal's exception would end put_file in this thread only. fsspec's own thread would go on with the upload.
    executor = ThreadPoolExecutor(max_workers=1)
    uploading = executor.submit(files.put_file, str(staged.path), key, callback=callback, **options)
    try:
        uploading.result()
    except BaseException:
        callback.interrupted = True
        wait([uploading], _SECONDS_TO_CLEAN_UP)
        if only_if_absent and uploading.done() and uploading.exception() is None:
            files.rm_file(key)  # it had arrived already, and a retry would find it and fail
        raise
    finally:
        executor.shutdown(wait=False)


def can_refuse_to_replace(files: Any) -> bool:
    """Tell whether a file system can ask its store to refuse to replace a key."""
    return bool({"mode", "overwrite"} & _parameters_of_put_file(files))


def _options(files: Any, size: int, *, only_if_absent: bool) -> dict[str, Any]:
    known = _parameters_of_put_file(files)
    options: dict[str, Any] = {"mode": "create" if only_if_absent else "overwrite", "overwrite": not only_if_absent}
    if "max_concurrency" in known:  # the others send one part after another, of a size that they choose well
        options["max_concurrency"] = _PARTS_AT_ONCE
        options["chunksize"] = max(_PART_SIZE, -(-size // _MAX_PARTS))
    return {name: value for name, value in options.items() if name in known}


def _parameters_of_put_file(files: Any) -> set[str]:
    return set(inspect.signature(files.put_file).parameters)
