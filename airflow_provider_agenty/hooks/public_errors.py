"""
The errors that the hook raises, in place of those of the packages below it.

Those packages know nothing of Airflow. What they raise becomes an error of :mod:`airflow_provider_agenty.exceptions`
here and nowhere else, without its cause, which may hold more than a person should see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar

from airflow_provider_agenty.api import errors
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyAuthError,
    AgentyDestinationError,
    AgentyError,
    AgentyExportError,
    AgentyInputError,
    AgentyNotFoundError,
    AgentyRequestError,
    AgentyUnavailableError,
)

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def translated(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method raise the public errors in place of those of the api package."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with translation():
            return method(*args, **kwargs)

    return call


def translated_iterator(method: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """Let a generator raise the public errors; what it is given is checked at the call, not at the first item."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        with translation():
            items = method(*args, **kwargs)
        return _iterate(items)

    def _iterate(items: Iterator[T]) -> Iterator[T]:
        with translation():
            yield from items

    return call


def translation() -> AbstractContextManager[None]:
    """Raise the public error in place of one of the api package."""
    return _in_place_of(errors.ApiError, public_error)


def public_error(error: errors.ApiError) -> AgentyError:
    """
    Return what the hook raises for an error of the api package.

    :param error: The error.
    """
    text = str(error)
    match error:
        case errors.InvalidInputError():
            return AgentyInputError(text)
        case errors.AuthenticationError():
            return AgentyAuthError(text)
        case errors.NotFoundError():
            return AgentyNotFoundError(text)
        case errors.RequestError():
            return AgentyRequestError(text, message=error.agenty_message, details=error.details, status=error.status)
        case errors.UnavailableError():
            return AgentyUnavailableError(text, retry_after=error.retry_after)
        case errors.AmbiguousStartError():
            return AgentyAmbiguousStartError(
                text, agent_id=error.agent_id, candidates=error.candidates, may_clear_up=error.may_clear_up
            )
    return AgentyError(text)


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
