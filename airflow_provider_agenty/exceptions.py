"""
The errors of this provider, all of them.

.. code-block:: text

    AgentyError                              an AirflowException
    ├── AgentyInputError                     final; a ValueError too
    ├── AgentyAuthError                      final: 401, 403
    ├── AgentyNotFoundError                  final: 404
    ├── AgentyRequestError                   final: any other 4xx
    ├── AgentyUnavailableError               429, 5xx, network
    ├── AgentyUnexpectedAnswerError          an answer that is not what the API promises
    │   └── AgentyAnswerTooLargeError
    ├── AgentyJobFailedError
    ├── AgentyJobStoppedError
    ├── AgentyBudgetError                    final
    ├── AgentyTimeoutError
    │   └── AgentyStalledError
    ├── AgentyAmbiguousStartError            final
    ├── AgentyAlreadyRunningError            final
    └── AgentyExportError
        ├── AgentyDestinationError           final
        └── AgentyQualityError               final

A final error is an ``AirflowFailException`` too: a retry cannot mend it. So Airflow fails the task without using up its
retries, also where a hook is called in ``@task``. No message holds the API key, a query string or a signed link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty.airflow_compat import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_agenty.api.logs import LogEntry
    from airflow_provider_agenty.api.models import Job


class AgentyError(AirflowException):
    """Something about Agenty went wrong."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied and pickled with what it carries, although its arguments are named."""
        return _restore, (type(self), self.args, vars(self).copy())


def _restore(kind: type[AgentyError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> AgentyError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(attributes)
    return error


class AgentyInputError(AgentyError, AirflowFailException, ValueError):
    """A parameter or a field of the connection can't be used. Nothing was sent."""


class AgentyAuthError(AgentyError, AirflowFailException):
    """Agenty does not accept the API key (401), or the key may not do this (403)."""


class AgentyNotFoundError(AgentyError, AirflowFailException):
    """There is no such job or agent (404)."""


class AgentyRequestError(AgentyError, AirflowFailException):
    """Agenty refused the request (any other 4xx): ``message`` and ``details`` are what it said."""

    def __init__(self, text: str, *, message: str = "", details: Sequence[str] = (), status: int | None = None) -> None:
        super().__init__(text)
        self.message = message
        self.details = tuple(details)
        self.status = status


class AgentyUnavailableError(AgentyError):
    """
    Agenty could not be reached, or asks to come back later (429, 5xx, network), after all attempts.

    :param retry_after: Seconds that Agenty asked to wait, if it did.
    :param status: The HTTP status, if there was an answer.
    :param kind: The part that failed: ``status``, ``name``, ``tls``, ``proxy``, ``timeout``, ``refused`` or
        ``connection``.
    :param acted_on: Whether Agenty may have acted on the request.
    :param passing: Whether the same call may succeed later.
    :param waited_for_answer: Whether the answer did not come in time, so that the request may still be on its way.
    """

    def __init__(
        self,
        text: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        kind: str = "connection",
        acted_on: bool = True,
        passing: bool = True,
        waited_for_answer: bool = False,
    ) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.status = status
        self.kind = kind
        self.acted_on = acted_on
        self.passing = passing
        self.waited_for_answer = waited_for_answer


class AgentyUnexpectedAnswerError(AgentyError):
    """Agenty answered, but not with what its API promises: no JSON, a part missing, a redirect elsewhere."""


class AgentyAnswerTooLargeError(AgentyUnexpectedAnswerError):
    """The answer is larger than what is read of one."""


class AgentyJobFailedError(AgentyError):
    """The job was aborted, or too many of its pages failed. ``log_entries`` are the last of its log."""

    def __init__(self, text: str, *, job: Job, log_entries: Sequence[LogEntry] = ()) -> None:
        super().__init__(text)
        self.job = job
        self.log_entries = tuple(log_entries)


class AgentyJobStoppedError(AgentyError):
    """Somebody stopped the job. ``job`` is how it was last seen."""

    def __init__(self, text: str, *, job: Job) -> None:
        super().__init__(text)
        self.job = job


class AgentyTimeoutError(AgentyError):
    """The job was not done in time. ``job`` is how it was last seen, if ever."""

    def __init__(self, text: str, *, job: Job | None = None) -> None:
        super().__init__(text)
        self.job = job


class AgentyStalledError(AgentyTimeoutError):
    """The job stood still for ``stall_timeout``, or waited ``queue_timeout`` for a worker of Agenty."""


class AgentyBudgetError(AgentyError, AirflowFailException):
    """
    The job cost more than ``max_credits``.

    :param text: The sentence for people.
    :param credits: The page credits that the job had cost when it was last seen.
    :param max_credits: The page credits that it was allowed to cost.
    :param job: The job, as it was last seen.
    """

    def __init__(
        self,
        text: str,
        *,
        credits: int,  # noqa: A002 - what Agenty calls it
        max_credits: float,
        job: Job,
    ) -> None:
        super().__init__(text)
        self.credits = credits
        self.max_credits = max_credits
        self.job = job


class AgentyAmbiguousStartError(AgentyError, AirflowFailException):
    """
    Whether a start made a job, or which one, can't be told. Nothing more was started; a person must look.

    :param candidates: Ids of the jobs it may have made, newest first.
    :param may_clear_up: Whether Agenty's list of jobs, which could not be read, may tell later.
    """

    def __init__(self, text: str, *, agent_id: str, candidates: Sequence[int] = (), may_clear_up: bool = False) -> None:
        super().__init__(text)
        self.agent_id = agent_id
        self.candidates = tuple(candidates)
        self.may_clear_up = may_clear_up


class AgentyAlreadyRunningError(AgentyError, AirflowFailException):
    """
    The agent has a job that goes on, and ``if_running="fail"`` says not to start another one.

    :param text: The sentence for people.
    :param agent_id: The agent.
    :param job_ids: Its jobs that go on, newest first.
    """

    def __init__(self, text: str, *, agent_id: str, job_ids: Sequence[int]) -> None:
        super().__init__(text)
        self.agent_id = agent_id
        self.job_ids = tuple(job_ids)


class AgentyExportError(AgentyError):
    """A file could not be landed whole. The destination is as it was."""


class AgentyDestinationError(AgentyExportError, AirflowFailException):
    """A file can't be landed there at all."""


class AgentyQualityError(AgentyExportError, AirflowFailException):
    """A result is not as good as ``required_fields`` or ``max_row_drop`` asks. The destination is as it was."""
