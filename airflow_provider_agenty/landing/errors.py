"""What can go wrong between a download and a file."""

from __future__ import annotations

import errno
import os

_WHAT_TO_DO = {
    errno.ENOSPC: "The disk is full: free space there or land somewhere else.",
    errno.EDQUOT: "The disk quota is used up: free space there or land somewhere else.",
    errno.EACCES: "The user that runs Airflow's tasks has no permission: grant it or land somewhere else.",
    errno.EPERM: "The user that runs Airflow's tasks has no permission: grant it or land somewhere else.",
    errno.EROFS: "The file system is read-only: land somewhere else.",
    errno.ENAMETOOLONG: "The name is too long for the file system: choose a shorter one.",
    errno.ELOOP: "Its symbolic links lead in a circle: correct them or choose another path.",
    errno.ENOTDIR: "A part of it is a file, not a folder: choose another path.",
    errno.EINVAL: "The file system does not take such a name: choose another path.",
    errno.EILSEQ: "The file system does not take such a name: choose another path.",
}
_A_RETRY_DOES_NOT_HELP = {
    *(set(_WHAT_TO_DO) - {errno.ENOSPC, errno.EDQUOT}),
    errno.EEXIST,
    errno.EISDIR,
    errno.ENXIO,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}


class LandingError(Exception):
    """
    Nothing was landed; the destination is as it was.

    :param message: what happened, to which file, and what to do, for people.
    :param retryable: whether trying again later may help (a cut download, trouble with the storage).
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class DestinationError(LandingError):
    """
    Nothing can be landed at this destination, and a retry can't mend that.

    :param message: what happened, to which file, and what to do, for people.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


class StartOver(Exception):  # noqa: N818 - not an error: the source asks to be read again
    """
    Raised by a source that must be read again from its first byte.

    What it gave so far is void; the next ``iter(source)`` begins anew. The source itself bounds how often.
    """


def storage_error(error: OSError, doing: str, path: str | os.PathLike[str]) -> LandingError:
    """
    Put an error of the operating system into words.

    :param error: the error.
    :param doing: what was tried, as in ``"write"``.
    :param path: the file or folder it was tried on.
    :return: the error to raise, with what to do where that is known.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"Could not {doing} {os.fspath(path)}: {reason}."
    if error.errno in _WHAT_TO_DO:
        message = f"{message} {_WHAT_TO_DO[error.errno]}"
    if error.errno in _A_RETRY_DOES_NOT_HELP:
        return DestinationError(message)
    return LandingError(message, retryable=True)
