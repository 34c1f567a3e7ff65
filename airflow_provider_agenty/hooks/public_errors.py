"""The errors that the hook raises, in place of those of the landing package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from airflow_provider_agenty.exceptions import (
    AgentyDestinationError,
    AgentyError,
    AgentyExportError,
    AgentyInputError,
)

E = TypeVar("E", bound=Exception)


def check_format(name: str) -> None:
    """
    Refuse a format that can't be had on this machine.

    :param name: The format.
    :raises AgentyInputError: saying why not.
    """
    from airflow_provider_agenty.landing import formats

    with _in_place_of(formats.FormatError, lambda error: AgentyInputError(str(error))):
        formats.check_format(name)


def landing_translation(*, is_open: bool = True) -> AbstractContextManager[None]:
    """
    Raise the public error in place of one of the landing package.

    :param is_open: Whether the destination is open already. What goes wrong before is final, unless it may pass.
        Afterwards only that is final which is wrong with the destination itself.
    """
    from airflow_provider_agenty.landing import DestinationError, LandingError

    def public(error: LandingError) -> AgentyError:
        is_final = isinstance(error, DestinationError) or (not is_open and not error.retryable)
        return (AgentyDestinationError if is_final else AgentyExportError)(str(error))

    return _in_place_of(LandingError, public)


@contextmanager
def _in_place_of(kind: type[E], public: Callable[[E], AgentyError]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        problem = public(error)
    else:
        return
    raise problem from None
