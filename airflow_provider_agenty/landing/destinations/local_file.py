"""A place on a local disk: the file is collected beside it and renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_provider_agenty.exceptions import AgentyDestinationError
from airflow_provider_agenty.landing.destinations import Destination, in_folder
from airflow_provider_agenty.landing.temporary_file import (
    StagedFile,
    disk_error,
    make_room,
    mode_of_new_file,
    staged_file,
    with_home_folder,
)

_LINKS_FOLLOWED = 40  # as Linux


def open_local(local: str, *, default_name: Callable[[], str], overwrite: bool) -> Destination:
    """Check a place on a local disk; a path that ends in ``/`` is a folder."""
    path = with_home_folder(local)
    try:
        if not path.startswith("/"):
            path = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
        _check_folder(path)
        if path.endswith("/"):
            path = in_folder(path, default_name())
        destination = LocalDestination(os.path.abspath(path), overwrite=overwrite)  # noqa: PTH100
        destination.check()
    except OSError as error:
        raise disk_error(error, "look at", path) from error
    return destination


def _check_folder(local: str) -> None:
    """Check, before the name of the file is known, whether a file can be made in its folder."""
    path = Path(os.path.abspath(local))  # noqa: PTH100
    _refuse_foreign_links(path)
    folder = path if local.endswith("/") else Path(os.path.realpath(path)).parent
    nearest = _nearest(folder)
    if not nearest.is_dir():
        raise AgentyDestinationError(f"{folder} can't be a folder, because {nearest} is a file: choose another path.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise AgentyDestinationError(
            f"{nearest} is not writable for the user that runs Airflow's tasks: grant it or choose another path."
        )


def _nearest(path: Path) -> Path:
    """Return the longest beginning of a path that exists; fail if there can be nothing of the names after it."""
    nearest = path
    while _mode(nearest) is None:
        nearest = nearest.parent
    for name in path.relative_to(nearest).parts:
        _mode(nearest / name)
    return nearest


def _mode(path: Path) -> int | None:
    """Tell what is at a path; ``None`` if there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refuse_foreign_links(path: Path) -> None:
    """Refuse symbolic links that another user made in a folder open to everyone, as ``protected_symlinks`` does."""
    for link in _links_on(path):
        folder, owner = link.parent.stat(), link.lstat().st_uid
        everybody_writes = stat.S_ISVTX | stat.S_IWOTH
        if folder.st_mode & everybody_writes == everybody_writes and owner not in {os.geteuid(), folder.st_uid}:
            raise AgentyDestinationError(
                f"{link} is a symbolic link that another user made in a folder open to everyone, so it is not "
                "followed. Remove it or choose another path."
            )


def _links_on(path: Path) -> Iterator[Path]:
    """Yield the symbolic links that are followed on the way to a path."""
    at, names, followed = Path("/"), list(reversed(path.parts[1:])), 0
    while names:
        name = names.pop()
        if name in {"..", "."}:
            at = at.parent if name == ".." else at
        elif (at / name).is_symlink():
            yield at / name
            followed += 1
            if followed > _LINKS_FOLLOWED:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = (at / name).readlink()
            at = Path("/") if target.is_absolute() else at
            names += reversed([part for part in target.parts if part != "/"])
        else:
            at /= name


class LocalDestination(Destination):
    """A place on a local disk. A symbolic link is followed: the file it leads to is replaced, the link stays."""

    def __init__(self, path: str, *, overwrite: bool) -> None:
        super().__init__(path, overwrite=overwrite)
        self._target = Path(os.path.realpath(path))
        self._final_mode = 0o600

    def check(self) -> None:
        """Check that the place is free or may be replaced."""
        _refuse_foreign_links(Path(self.path))
        mode = _mode(self._target)
        if mode is None:
            _nearest(self._target)
            return
        if stat.S_ISDIR(mode):
            raise self._is_folder()
        if not stat.S_ISREG(mode):
            raise AgentyDestinationError(f"{self.path} is not a regular file: choose another path.")
        if not self._overwrite:
            raise self._exists_already()

    @contextlib.contextmanager
    def stage(self, *, length: int | None, spool_folder: str | None) -> Iterator[StagedFile]:  # noqa: ARG002
        """Open a temporary file beside the place, making its parent folders."""
        folder = self._target.parent
        make_room(folder, length)
        _refuse_foreign_links(folder)  # it has none, unless somebody has just made one
        self._final_mode = self._mode_to_give()
        with staged_file(folder, self._target.name) as staged:
            yield staged

    def _mode_to_give(self) -> int:
        """Tell the permission bits for the file: those of one's own that it replaces, else those of a new file."""
        with contextlib.suppress(OSError):
            old = self._target.lstat()
            if stat.S_ISREG(old.st_mode) and old.st_uid == os.geteuid():
                return stat.S_IMODE(old.st_mode) & 0o777
        return mode_of_new_file(self._target.parent)

    def publish(self, staged: StagedFile) -> None:
        """Rename the temporary file to its final name, after bringing it to the disk."""
        try:
            staged.set_mode(self._final_mode)
            staged.sync()
            if self._overwrite:
                staged.path.replace(self._target)
            else:
                self._publish_if_absent(staged.path)
        except FileExistsError:
            raise self._exists_already() from None
        except OSError as error:
            raise disk_error(error, "publish", self.path) from error
        _sync_folder(self._target.parent)

    def _publish_if_absent(self, staged: Path) -> None:
        try:
            os.link(staged, self._target)
        except FileExistsError:
            raise
        except OSError:
            # Not every file system has hard links; what is left is to look right before the rename.
            if os.path.lexists(self._target):
                raise FileExistsError from None
            staged.replace(self._target)


def _sync_folder(folder: Path) -> None:
    # Not every file system can do this to a folder, and the file itself is whole either way.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
