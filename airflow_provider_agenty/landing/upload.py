"""
The upload of a temporary file through fsspec.

It goes up as a whole or in parts, several at once, in bounded memory; one that fails or is interrupted is aborted.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from typing import Any

from airflow_provider_agenty.landing.s3_parts import upload_in_parts
from airflow_provider_agenty.landing.staging import StagedFile

_PART_SIZE = 8 * 1024 * 1024  # a request costs money too; S3 takes 5 MiB at least
_PARTS_AT_ONCE = 4  # with the part size above this bounds the memory an upload takes
_MOST_PARTS = 9_000  # S3 takes 10,000
_LONGEST_GOODBYE = 30.0  # seconds an interrupted upload gets to clean up after itself


class Upload:
    """
    One upload, in a thread of its own, so that a signal's exception can end it in an orderly way.

    :param files: the file system to upload to.
    :param staged: the file.
    :param key: its name there.
    :param only_if_absent: whether the store is to refuse it if the key is there already, where it can do that.
    """

    def __init__(self, files: Any, staged: StagedFile, key: str, *, only_if_absent: bool) -> None:
        self._files = files
        self._staged = staged
        self._key = key
        self._only_if_absent = only_if_absent
        self._error: BaseException | None = None
        self._parameters = _parameters_of_put_file(files)
        self.done = False

    def run(self) -> None:
        """
        Upload the file; when this is interrupted, let the store clean up first.

        :raises Exception: what the file system raises.
        """
        callback = _interruptible_callback()
        ended = threading.Event()  # not Thread.join, which takes the thread for ended when it is interrupted
        thread = threading.Thread(target=self._work, args=(callback, ended), name="landing-upload", daemon=True)
        thread.start()
        try:
            ended.wait()
        except BaseException:
            callback.interrupted = True
            ended.wait(_LONGEST_GOODBYE)
            raise
        if self._error is not None:
            raise self._error

    def _work(self, callback: Any, ended: threading.Event) -> None:
        try:
            if self._is_large_for_s3:
                self._send_parts_to_s3(callback)
            else:
                self._files.put_file(str(self._staged.path), self._key, callback=callback, **self._options())
            self.done = True
        except BaseException as error:  # raised again in the thread that waits
            self._error = error
        ended.set()

    @property
    def _is_large_for_s3(self) -> bool:
        # Below two parts s3fs sends the file as one.
        return hasattr(self._files, "call_s3") and self._staged.size >= 2 * part_size(self._staged.size)

    def _send_parts_to_s3(self, callback: Any) -> None:
        from fsspec.asyn import sync  # type: ignore[import-untyped]

        sync(
            self._files.loop,
            upload_in_parts,
            self._files,
            self._staged.path,
            self._key,
            part_size=part_size(self._staged.size),
            at_once=_PARTS_AT_ONCE,
            only_if_absent=self._only_if_absent,
            callback=callback,
        )

    def _options(self) -> dict[str, Any]:
        at_once = _PARTS_AT_ONCE if "max_concurrency" in self._parameters else 1
        wanted = {
            "chunksize": part_size(self._staged.size) * (_PARTS_AT_ONCE // at_once),
            "max_concurrency": at_once,
            "mode": "create" if self._only_if_absent else "overwrite",
            "overwrite": not self._only_if_absent,
        }
        return {name: value for name, value in wanted.items() if name in self._parameters}


def can_be_only_if_absent(files: Any) -> bool:
    """
    Tell whether a store itself can refuse to replace a key.

    :param files: the file system.
    """
    return bool({"mode", "overwrite"} & set(_parameters_of_put_file(files)))


def _parameters_of_put_file(files: Any) -> Mapping[str, inspect.Parameter]:
    put_file = getattr(files, "_put_file", files.put_file) if files.async_impl else files.put_file
    return inspect.signature(put_file).parameters


def part_size(size: int) -> int:
    """
    Choose the size of an upload's parts.

    :param size: the file's size in bytes.
    :return: 8 MiB, or the multiple of it that keeps the number of parts within what stores take.
    """
    return max(1, -(-size // (_MOST_PARTS * _PART_SIZE))) * _PART_SIZE


def _interruptible_callback() -> Any:
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    class InterruptibleCallback(Callback):  # type: ignore[misc]
        """Ends an upload at its next part with an error, which makes the file system abort it."""

        interrupted = False

        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            if self.interrupted:
                raise InterruptedError("the upload was interrupted")
            super().call(hook_name, **kwargs)

    return InterruptibleCallback()
