"""
Another client for S3, of the same settings, in an event loop of its own.

Where the connection is not encrypted, each request is signed with a digest of all that it sends. An event loop that
computes one sends nothing meanwhile, so two of them are faster than one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

# Before, s3fs took a client that had sent nothing yet for a closed one, and replaced it with one without the session's
# credentials.
_FIRST_WITH_NEW_CLIENTS_THAT_STAY = "2026.6.0"


async def another_client_helps(files: Any) -> bool:
    """
    Tell whether requests are signed with a digest of all that they send, and whether two clients may do it.

    :param files: the ``s3fs.S3FileSystem``, connected; this runs in its event loop.
    """
    return _signs_what_it_sends(files) and _new_clients_stay() and not await _has_credentials_that_expire(files)


def _new_clients_stay() -> bool:
    import s3fs  # type: ignore[import-untyped]
    from packaging.version import Version

    return Version(s3fs.__version__) >= Version(_FIRST_WITH_NEW_CLIENTS_THAT_STAY)


def _signs_what_it_sends(files: Any) -> bool:
    from botocore import UNSIGNED  # type: ignore[import-untyped]

    meta = files.s3.meta
    if meta.config.signature_version is UNSIGNED:
        return False
    told = (meta.config.s3 or {}).get("payload_signing_enabled")
    return not meta.endpoint_url.startswith("https:") if told is None else bool(told)


async def _has_credentials_that_expire(files: Any) -> bool:
    """Tell whether the credentials are renewed now and then, which two event loops must not do at once."""
    from botocore.credentials import RefreshableCredentials  # type: ignore[import-untyped]

    if files.key or files.client_kwargs.get("aws_access_key_id"):
        return False
    return isinstance(await files.session.get_credentials(), RefreshableCredentials)


def with_another_client(files: Any, work: Callable[[Any], Coroutine[Any, Any, None]]) -> Awaitable[None]:
    """
    Do work with another client, in an event loop and a thread of its own, which end with it.

    :param files: the ``s3fs.S3FileSystem`` whose settings it gets.
    :param work: called with a file system of another client, if there can be one.
    :return: what ends when the work has; it raises what the work does.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(_work_with_another(files, work)))
        except BaseException as error:  # raised again where it is waited for
            done.set_exception(error)

    # A daemon: one of an executor would hold up the end of a process that was told to end.
    threading.Thread(target=run, name="landing-upload", daemon=True).start()
    return asyncio.wrap_future(done)


async def _work_with_another(files: Any, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    settings = {**files.storage_options, "asynchronous": True, "loop": None, "skip_instance_cache": True}
    try:
        other = type(files)(*files.storage_args, **settings)
        client = await other.set_session()
    except Exception:
        return  # a file system of the user's own need not be one that can be made twice
    try:
        await work(other)
    finally:
        await client.close()
