"""What a place for a landed file has to be able to do."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable

from airflow_provider_agenty.exceptions import AgentyDestinationError
from airflow_provider_agenty.landing.temporary_file import StagedFile


class Destination(ABC):
    """
    A place for one file.

    :param path: the place as it is told to others.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def compressed(self) -> bool:
        """Whether the file is gzipped on the way: its name ends in ``.gz``."""
        return self.path.lower().endswith(".gz")

    @abstractmethod
    def stage(self, *, length: int | None, spool_folder: str | None) -> contextlib.AbstractContextManager[StagedFile]:
        """
        Open a temporary file on the way to this place.

        :param length: how many bytes will be written, where that is known: there must be room for them.
        :param spool_folder: the local folder for files on their way to an object store.
        :return: a context manager giving the file, which is removed in the end.
        """

    @abstractmethod
    def publish(self, staged: StagedFile) -> None:
        """
        Make a finished temporary file appear here, whole, in one step.

        :param staged: the file.
        :raises AgentyExportError: if it can't; then this place is as it was.
        """


def in_folder(folder: str, default_name: Callable[[], str] | str) -> str:
    """
    Return the path of a file that has no name of its own yet.

    :param folder: the folder, which ends in ``/``.
    :param default_name: the file's name, or what finds it out.
    :raises AgentyExportError: if the name leads out of the folder.
    """
    name = default_name if isinstance(default_name, str) else default_name()
    if name in {"", ".", ".."} or not name.isprintable() or "/" in name or "\\" in name:
        raise AgentyDestinationError(
            f"{name!r} is no name for a file in {folder}: end the path in a file name of your own."
        )
    return folder + name
