"""
What a task remembers across its tries, so that a retry finds the job again and goes on with the copy of its log.

Three things are kept in Airflow's task state store (3.3 and later): the *intent*, before a start is sent, the job,
right after it, and how far its log was copied. All carry ``max_tries`` of the task instance, which a retry leaves as
it is and a clear raises: what was stored before a clear counts no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from airflow.sdk import Context

JOB_KEY = "agenty_job"
INTENT_KEY = "agenty_start"
LOG_KEY = "agenty_log"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intent:
    """
    A start that was about to be sent.

    :param newest_job_id: The id of the agent's newest job before it.
    :param age: How many seconds ago that was.
    """

    newest_job_id: int
    age: float


class StartMemory:
    """
    What the tries of one task instance know of its start.

    :param context: The context of the task.
    :param agent_id: The agent that is to be started: what was stored for another one does not count.
    """

    def __init__(self, context: Context, agent_id: str) -> None:
        self._store: Any = context.get("task_state_store")
        self._task_instance: Any = context["ti"]
        self._agent_id = agent_id

    @property
    def is_there(self) -> bool:
        """Whether this Airflow can remember anything."""
        return self._store is not None

    def describe_job(self, job_id: int) -> dict[str, Any]:
        """
        Return what is stored of a job.

        :param job_id: The job.
        """
        return {"agent_id": self._agent_id, "job_id": job_id, "max_tries": self._task_instance.max_tries}

    def read_job_id(self, stored: Any) -> int | None:
        """
        Return the job that an earlier try of this very start stored; ``None`` if it is of another one.

        :param stored: What the store holds.
        """
        job_id = stored.get("job_id") if self._is_ours(stored) else None
        return job_id if isinstance(job_id, int) else None

    def keep_intent(self, newest_job_id: int) -> None:
        """
        Store that a start is about to be sent.

        :param newest_job_id: The id of the agent's newest job before it.
        """
        if self.is_there:
            self._store.set(
                INTENT_KEY,
                {
                    "agent_id": self._agent_id,
                    "newest_job_id": newest_job_id,
                    "max_tries": self._task_instance.max_tries,
                    "at": time.time(),
                },
            )

    def read_intent(self) -> Intent | None:
        """
        Return the intent of an earlier try whose outcome nobody stored; ``None`` if there is none.

        A newer job in the store settles an intent: a retry after an aborted job must not take that job up again.
        """
        stored = self._store.get(INTENT_KEY) if self.is_there else None
        if not self._is_ours(stored):
            return None
        newest_job_id, at = stored.get("newest_job_id"), stored.get("at")
        if not isinstance(newest_job_id, int) or not isinstance(at, int | float):
            return None
        job_id = self.read_job_id(self._store.get(JOB_KEY))
        if job_id is not None and job_id > newest_job_id:
            return None
        return Intent(newest_job_id, max(time.time() - at, 0.0))

    def _is_ours(self, stored: Any) -> TypeGuard[Mapping[str, Any]]:
        return (
            isinstance(stored, Mapping)
            and stored.get("agent_id") == self._agent_id
            and stored.get("max_tries") == self._task_instance.max_tries
        )


def offset_in(stored: Any, of: Mapping[str, Any]) -> int:
    """
    Return how many lines of a log were copied, by what was stored of that; 0 if it is of something else, or no use.

    :param stored: What was stored.
    :param of: What it has to be of: the job, and the tries or the try.
    """
    if not isinstance(stored, Mapping) or {**stored, **of} != stored:
        return 0
    offset = stored.get("offset")
    return offset if isinstance(offset, int) else 0


class LogMemory:
    """
    What the tries of one task instance know of the copy of a job's log.

    What goes wrong in it costs lines that come twice, never the wait.

    :param context: The context of the task.
    :param job_id: The job: what was stored for another one does not count.
    """

    def __init__(self, context: Context, job_id: int) -> None:
        self._store: Any = context.get("task_state_store")
        self._of = {"job_id": job_id, "max_tries": context["ti"].max_tries}

    @property
    def is_there(self) -> bool:
        """Whether this Airflow can remember anything."""
        return self._store is not None

    def read_offset(self) -> int:
        """Return how many lines of the log were copied, in this process or in another one."""
        try:
            stored = self._store.get(LOG_KEY) if self.is_there else None
        except Exception as error:
            log.warning("How far the job's log was copied can't be read, it is copied from its start: %s", error)
            return 0
        return offset_in(stored, self._of)

    def keep_offset(self, offset: int) -> None:
        """
        Store how many lines of the log are copied.

        :param offset: The lines.
        """
        if self.is_there:
            try:
                self._store.set(LOG_KEY, {**self._of, "offset": offset})
            except Exception as error:
                log.warning("How far the job's log was copied could not be stored: %s", error)


def is_retry(context: Context) -> bool:
    """
    Return whether this try is a retry, not the first one of a run or after a clear.

    :param context: The context of the task.
    """
    task_instance: Any = context["ti"]
    # A clear sets max_tries to the tries there were, plus the task's retries.
    first_try = task_instance.max_tries - (context["task"].retries or 0) + 1
    return bool(task_instance.try_number > first_try)
