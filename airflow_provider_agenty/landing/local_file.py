"""A place on a local disk: the file is collected beside it and renamed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_provider_agenty.landing.destination import Destination
from airflow_provider_agenty.landing.errors import LandingError, storage_error
from airflow_provider_agenty.landing.staging import StagedFile, make_room, staged_file

_NEW_FILE = 0o666  # less the umask, as for any new file


def open_local(local: str, *, default_name: Callable[[], str] | str, overwrite: bool) -> Destination:
    """
    Check a place on a local disk.

    :param local: the path; one that ends in ``/`` stands for a folder, in which the file gets its default name.
    :param default_name: the file's name in a folder, or what finds it out.
    :param overwrite: whether a file that is there already may be replaced.
    :return: the destination.
    :raises LandingError: if nothing can be landed there.
    """
    _check_folder(local)
    if local.endswith("/"):
        local += default_name if isinstance(default_name, str) else default_name()
    destination = LocalDestination(os.path.abspath(os.path.expanduser(local)), overwrite=overwrite)  # noqa: PTH100, PTH111 - a Path drops what is needed
    destination.check()
    return destination


def local_path_of_url(url: str) -> str:
    """
    Return the path in a ``file://`` URL.

    :param url: the URL.
    :raises LandingError: if it names a file on another host.
    """
    host, slash, local = url.partition("://")[2].partition("/")
    if host not in ("", "localhost") or not slash:
        raise LandingError(
            f"{url} names a file on another host ({host or 'none'}): a file URL has three slashes, "
            "as in file:///folder/name.csv."
        )
    return f"/{local}"


def _check_folder(local: str) -> None:
    """Check, before the name of the file is known, whether a file can be made in its folder."""
    path = Path(local).expanduser().absolute()
    folder = path if local.endswith("/") else Path(os.path.realpath(path)).parent
    if path.is_dir() and not local.endswith("/"):
        raise LandingError(f"{path} is a folder: add a / to land a file in it, or a file name.")
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise LandingError(f"{folder} can't be a folder, because {nearest} is a file: choose another path.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise LandingError(
            f"{nearest} is not writable for the user that runs Airflow's tasks: grant it or choose another path."
        )


class LocalDestination(Destination):
    """
    A place on a local disk.

    A symbolic link is followed: the file it leads to is replaced, the link stays.

    :param path: the absolute path.
    :param overwrite: whether a file that is there already may be replaced.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        super().__init__(path)
        self._overwrite = overwrite
        self._target = Path(os.path.realpath(path))

    def check(self) -> None:
        """
        Check that the place is free or may be replaced.

        :raises LandingError: if not.
        """
        mode = self._existing_mode()
        if mode is None:
            return
        if stat.S_ISDIR(mode):
            raise LandingError(f"{self.path} is a folder: add a / to land a file in it, or a file name.")
        if not stat.S_ISREG(mode):
            raise LandingError(f"{self.path} is not a regular file: choose another path.")
        if not self._overwrite:
            raise self._exists_already()

    def _existing_mode(self) -> int | None:
        try:
            return self._target.stat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "look at", self.path) from error

    def _exists_already(self) -> LandingError:
        return LandingError(f"{self.path} exists already and overwrite is False: remove it or choose another path.")

    @contextlib.contextmanager
    def stage(self, *, length: int | None, spool_folder: str | None) -> Iterator[StagedFile]:  # noqa: ARG002
        """Open a temporary file beside the place, making its parent folders."""
        folder = self._target.parent
        make_room(folder, length)
        mode = self._existing_mode()
        with staged_file(folder, self._target.name, mode=_NEW_FILE, durable=True) as staged:
            if mode is not None:
                staged.set_mode(stat.S_IMODE(mode))
            yield staged

    def publish(self, staged: StagedFile) -> None:
        """Rename the temporary file to its final name, after bringing it to the disk."""
        staged.sync()
        try:
            if self._overwrite:
                staged.path.replace(self._target)
            else:
                self._publish_if_absent(staged.path)
        except FileExistsError:
            pass
        except OSError as error:
            raise storage_error(error, "publish", self.path) from error
        else:
            _sync_folder(self._target.parent)
            return
        raise self._exists_already()

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
