"""
The temporary file that content is collected in before it is published.

Its name begins with a dot and ends in ``.agenty-part``. It is locked while it is written, and removed whatever
goes wrong; only a process killed outright leaves one behind. The next landing in the same folder removes those
that no one holds locked and that have not been written to for ten minutes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import itertools
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError
from airflow_provider_agenty.landing.progress import readable_size

SUFFIX = ".agenty-part"
_ABANDONED_AFTER = 600.0  # seconds; a lock may not be seen from another host on every network file system
_ENTRIES_LOOKED_AT = 10_000
_LONGEST_STEM = 100  # bytes
_PRIVATE = 0o600  # until it is published: the folder is often open to everyone
_NEW_FILE = 0o666  # less the umask, as for any new file
_CAN_NOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EROFS}
_MAY_PASS = {
    errno.ENOSPC: "The disk is full: free space there or land somewhere else.",
    errno.EDQUOT: "The disk quota is used up: free space there or land somewhere else.",
}
_IS_FINAL = {
    errno.EACCES: "The user that runs Airflow's tasks has no permission: grant it or land somewhere else.",
    errno.EPERM: "The user that runs Airflow's tasks has no permission: grant it or land somewhere else.",
    errno.EROFS: "The file system is read-only: land somewhere else.",
    errno.ENAMETOOLONG: "The name is too long for the file system: choose a shorter one.",
    errno.ELOOP: "Its symbolic links lead in a circle: correct them or choose another path.",
    errno.ENOTDIR: "A part of it is a file, not a folder: choose another path.",
    errno.EINVAL: "The file system does not take such a name: choose another path.",
    errno.EILSEQ: "The file system does not take such a name: choose another path.",
    **dict.fromkeys((errno.EEXIST, errno.EISDIR, errno.ENXIO, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP), ""),
}
_log = logging.getLogger(__name__)


def disk_error(error: OSError, doing: str, path: str | os.PathLike[str]) -> AgentyExportError:
    """Return the error that says what the system refused to do with a file or folder, and what to do about it."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    what_to_do = _IS_FINAL.get(number) or _MAY_PASS.get(number, "")
    message = f"Could not {doing} {os.fspath(path)}: {reason}. {what_to_do}".rstrip()
    return (AgentyDestinationError if number in _IS_FINAL else AgentyExportError)(message)


class StagedFile:
    """An open temporary file, unbuffered; messages name its final path."""

    def __init__(self, path: Path, file: io.FileIO, *, final_path: Path) -> None:
        self.path = path
        self._file = file
        self._final_path = final_path

    def write(self, data: bytes) -> None:
        """Append all of some bytes."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise disk_error(error, "write", self._final_path) from error

    def restart(self) -> None:
        """Throw away what was written so far."""
        self._file.seek(0)
        self._file.truncate()

    @contextlib.contextmanager
    def content(self) -> Iterator[IO[bytes]]:
        """Open what was written so far, to be read."""
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise disk_error(error, "read", self._final_path) from error

    def set_mode(self, mode: int) -> None:
        """Give it permission bits, the umask not applied. A file system that refuses them is a warning."""
        try:
            if stat.S_IMODE(os.fstat(self._file.fileno()).st_mode) != mode:
                os.fchmod(self._file.fileno(), mode)
        except OSError as error:
            _log.warning("%s could not get the permission bits %o: %s", self._final_path, mode, error)

    def sync(self) -> None:
        """Bring all of it to the disk: some file systems find out only now that they are full."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno not in _CAN_NOT_SYNC:
                raise disk_error(error, "write", self._final_path) from error
            _log.warning("The file system of %s can't flush a file to the disk: %s", self._final_path, error)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close it; nothing more can be written."""
        try:
            self._file.close()
        except OSError as error:
            raise disk_error(error, "write", self._final_path) from error


@contextlib.contextmanager
def staged_file(folder: Path, stem: str) -> Iterator[StagedFile]:
    """Open a temporary file in a folder, for its user only, and remove it in the end, unless it was moved away."""
    _remove_abandoned(folder)
    short = stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
    path = folder / f".{short}.{secrets.token_hex(8)}{SUFFIX}"
    file = io.FileIO(_create(path, _PRIVATE), "wb")
    with contextlib.closing(StagedFile(path, file, final_path=folder / stem)) as staged:
        try:
            _lock(file.fileno())
            yield staged
        finally:
            # Before it is closed: that may wait for the disk, and a process that ends gets little time.
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("The temporary file %s could not be removed: %s", path, error)


def mode_of_new_file(folder: Path) -> int:
    """Find out which permission bits a new file gets in a folder: umask, access lists and the mount have a say."""
    probe = folder / f".{secrets.token_hex(8)}{SUFFIX}"
    descriptor = _create(probe, _NEW_FILE)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o777
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            probe.unlink()


def spool_place(folder: str | None) -> Path:
    """Return the local folder for what is not at its place yet; by default the system's for temporary files."""
    return Path(with_home_folder(folder or tempfile.gettempdir()))


def with_home_folder(path: str) -> str:
    """Return a local path with the home folder that it may begin with."""
    expanded = os.path.expanduser(path)  # noqa: PTH111 - a Path drops what is needed
    if expanded.startswith("~"):
        raise AgentyDestinationError(f"{path} begins with the home folder of a user that this machine does not know.")
    return expanded


def make_room(folder: Path, length: int | None) -> None:
    """Make a folder and check that there is room in it for so many bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, "make the folder", folder) from error
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    # Some mounts of object stores say that they have no room at all.
    if length is not None and usage.total and length > usage.free:
        raise AgentyExportError(
            f"There is not enough room in {folder}: the file has {readable_size(length)}, {readable_size(usage.free)} "
            "are free. Free space there or choose another folder."
        )


def _create(path: Path, mode: int) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    except OSError as error:
        raise disk_error(error, "make a file in", path.parent) from error


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in itertools.islice(entries, _ENTRIES_LOOKED_AT):
            if entry.name.startswith(".") and entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry)


def _remove_if_abandoned(entry: os.DirEntry[str]) -> None:
    if time.time() - entry.stat(follow_symlinks=False).st_mtime < _ABANDONED_AFTER:
        return
    descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _lock(descriptor):
            os.unlink(entry.path)  # noqa: PTH108 - the entry is a string already
    finally:
        os.close(descriptor)
