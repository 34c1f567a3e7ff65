"""What can go wrong when Agenty is asked. The hook turns these into the public errors of the provider."""

from __future__ import annotations

from collections.abc import Sequence


class ApiError(Exception):
    """
    A call of the Agenty API did not give what it should.

    The message never holds the API key, a query string or a signed link.
    """


class InvalidInputError(ApiError, ValueError):
    """Something was refused before anything was sent."""


class AuthenticationError(ApiError):
    """Agenty does not accept the key (401), or the key may not do this (403)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ApiError):
    """There is no such job or agent (404)."""


class RequestError(ApiError):
    """
    Agenty refused the request (any other 4xx).

    :param message: The sentence for people.
    :param status: The HTTP status.
    :param agenty_message: What Agenty said, empty where it said nothing.
    :param details: The single errors Agenty listed.
    """

    def __init__(self, message: str, *, status: int, agenty_message: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.agenty_message = agenty_message
        self.details = tuple(details)


class UnexpectedAnswerError(ApiError):
    """Agenty answered, but not with what its API promises: no JSON, a part missing, a redirect elsewhere."""


class AnswerTooLargeError(UnexpectedAnswerError):
    """The decoded answer is larger than what is read of one."""


class UnavailableError(ApiError):
    """
    Agenty could not be reached, or asks to come back later (429, 5xx, network).

    :param message: The sentence for people.
    :param kind: What failed, one of ``status``, ``name``, ``tls``, ``proxy``, ``timeout``, ``refused``,
        ``connection``.
    :param acted_on: Whether Agenty may have acted on the request. ``False`` where it certainly was not:
        the connection never stood, or Agenty turned the request away unread.
    :param passing: Whether the same call may succeed later.
    :param waited_for_answer: Whether the answer did not come within the read timeout, so that the request
        may still be on its way.
    :param retry_after: How many seconds Agenty asked to wait, if it did.
    :param status: The HTTP status, if there was an answer.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        acted_on: bool,
        passing: bool = True,
        waited_for_answer: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.acted_on = acted_on
        self.passing = passing
        self.waited_for_answer = waited_for_answer
        self.retry_after = retry_after
        self.status = status


class AmbiguousStartError(ApiError):
    """
    It cannot be told whether a start reached Agenty, or which of several jobs it made.

    :param message: The sentence for people.
    :param agent_id: The agent.
    :param candidates: Ids of the jobs that it may have made, newest first.
    :param may_clear_up: Whether Agenty's list of jobs, which could not be read, may tell later.
    """

    def __init__(
        self, message: str, *, agent_id: str, candidates: Sequence[int] = (), may_clear_up: bool = False
    ) -> None:
        super().__init__(message)
        self.agent_id = agent_id
        self.candidates = tuple(candidates)
        self.may_clear_up = may_clear_up
