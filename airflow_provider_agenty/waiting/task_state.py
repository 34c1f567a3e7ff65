"""
The memory of a task across its tries: a retry finds the job again and goes on with the copy of its log.

It holds the *intent*, stored before a start is sent, the job, stored right after it, and how far the log was copied.
Airflow's task state store keeps them (3.3 and later). Before it, an Airflow Variable keeps the first two, where
``[agenty] start_memory`` says so; by default nothing does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from airflow_provider_agenty import airflow_compat
from airflow_provider_agenty.exceptions import AgentyInputError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job

JOB_ID_XCOM = "job_id"
"""The XCom with the id of the job, there as soon as it is known: a task that fails returns nothing."""

JOB_KEY = "agenty_job"
INTENT_KEY = "agenty_start"
LOG_KEY = "agenty_log"
CHANGE_KEY = "agenty_change"
PROGRESS_KEY = "agenty_progress"

SECONDS_BETWEEN_PROGRESS = 30.0
"""Minimum seconds between two stores of the progress of a job that goes on."""

VARIABLE_PREFIX = "agenty_start_"

AUTO, VARIABLES = START_MEMORIES = ("auto", "variables")
"""The values of ``[agenty] start_memory``."""

log = logging.getLogger(__name__)


def stamp_of_tries(context: Context) -> dict[str, int]:
    """
    Return what a stored entry carries, so that a retry takes it up and a try after a clear does not.

    A retry leaves ``max_tries`` as it is, a clear raises it. So an entry with another one does not count. Seen by
    running it:

    =======  ==========================  ==================================
    Airflow  a clear of a finished task  a clear of a task while it runs
    =======  ==========================  ==================================
    3.1-3.3  raises it                   raises it
    3.0      raises it                   the task stays ``restarting``
    2.11     raises it                   leaves it: it looks like a retry
    =======  ==========================  ==================================
    """
    return {"max_tries": context["ti"].max_tries}


def is_retry(context: Context) -> bool:
    """Return whether this try is a retry, not the first one of a run or after a clear: see :func:`stamp_of_tries`."""
    # A clear sets max_tries to the tries there were, plus the task's retries.
    first_try = stamp_of_tries(context)["max_tries"] - (context["task"].retries or 0) + 1
    task_instance: Any = context["ti"]
    return bool(task_instance.try_number > first_try)


class TaskState(Protocol):
    """Airflow's task state store, or the Variable of a task instance."""

    def get(self, key: str) -> Any:
        """Return what is stored, or ``None``."""

    def set(self, key: str, value: Any) -> None:
        """Store a JSON value."""


class VariableState:
    """
    The state of one task instance, in an Airflow Variable of its own.

    An error costs a warning, never the start: then nothing is remembered.
    """

    def __init__(self, context: Context) -> None:
        task_instance: Any = context["ti"]
        map_index = getattr(task_instance, "map_index", -1)
        names = [
            task_instance.dag_id,
            task_instance.run_id,
            task_instance.task_id,
            -1 if map_index is None else map_index,
        ]
        self.key = VARIABLE_PREFIX + hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]
        self._description = "Which job of Agenty was started: DAG {}, run {}, task {}, map index {}".format(*names)
        self._values: dict[str, Any] | None = None
        self.works = True
        """Whether all that was asked of the Variable was done."""

    def get(self, key: str) -> Any:
        """Return what an earlier try stored, or this one."""
        if self._values is None:
            stored = self._try(lambda: json.loads(airflow_compat.read_variable(self.key) or "{}"))
            self._values = stored if isinstance(stored, dict) else {}
        return self._values.get(key)

    def set(self, key: str, value: Any) -> None:
        """Store a value beside the others."""
        self.get(key)
        self._values = {**(self._values or {}), key: value}
        text = json.dumps(self._values)
        self._try(lambda: airflow_compat.write_variable(self.key, text, self._description))

    def delete(self) -> None:
        """Remove the Variable."""
        self._try(lambda: airflow_compat.delete_variable(self.key))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (EOFError, OSError):
            # The supervisor of this process has ended (Airflow 3.0 and 3.1, if its API server does not answer). Nobody
            # would know of a start, and Airflow has begun the next try.
            raise
        except Exception as error:
            self.works = False
            log.warning(
                "Airflow's Variable %s can't be used (%s). If this try is lost, a retry looks for its job in Agenty's "
                "list of jobs",
                self.key,
                type(error).__name__,
            )
            return None


def open_task_state(context: Context) -> TaskState | None:
    """
    Return what remembers the start of a task instance; ``None`` where nothing does.

    :raises AgentyInputError: if Airflow's configuration names another memory than there is.
    """
    store: TaskState | None = context.get("task_state_store")
    if store is not None or airflow_compat.HAS_TASK_STATE_STORE:
        return store
    setting = str(airflow_compat.conf.get("agenty", "start_memory", fallback=AUTO)).strip().lower()
    if setting not in START_MEMORIES:
        raise AgentyInputError(
            f"[agenty] start_memory in Airflow's configuration is {setting!r}. Set it to 'auto' or 'variables'."
        )
    return VariableState(context) if setting == VARIABLES else None


def forget_when_it_ends(state: VariableState, task: Any) -> None:
    """
    Have Airflow remove the Variable once it has noted that the task succeeded, was skipped, or failed for good.

    Not earlier: a process that is killed in between would be retried, and would know of no job.
    """

    def forget(context: Context) -> None:
        airflow_compat.once_the_state_is_stored(context["ti"], state.delete)

    for name in ("on_success_callback", "on_skipped_callback", "on_failure_callback"):
        callbacks = getattr(task, name, None) or []
        callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
        setattr(task, name, [*callbacks, forget])


@dataclass(frozen=True)
class Intent:
    """
    A start that was about to be sent.

    :param newest_job_id: The id of the agent's newest job before it.
    :param age: Seconds since then.
    """

    newest_job_id: int
    age: float


def remembered_agent_id(context: Context, agent_name: str) -> str | None:
    """Return the agent that an earlier try found by this name and began to start; ``None`` if there is none."""
    state: TaskState | None = context.get("task_state_store")
    of = {"agent_name": agent_name, **stamp_of_tries(context)}
    entries = () if state is None else (state.get(key) for key in (JOB_KEY, INTENT_KEY))
    return next((str(stored["agent_id"]) for stored in entries if _is_of(stored, of) and "agent_id" in stored), None)


class StartMemory:
    """
    The memory of a start, across the tries of one task instance.

    :param agent_id: The agent that is to be started: what was stored for another one does not count.
    :param agent_name: The name by which it was found, stored for :func:`remembered_agent_id`.
    """

    def __init__(self, context: Context, agent_id: str, agent_name: str | None = None) -> None:
        self._state: TaskState | None = context.get("task_state_store")
        self._of = {"agent_id": agent_id, **stamp_of_tries(context)}
        self._stored = self._of if agent_name is None else {**self._of, "agent_name": agent_name}

    @property
    def is_there(self) -> bool:
        """Whether what an earlier try knew would be known now."""
        return self._state is not None and getattr(self._state, "works", True)

    def describe_job(self, job_id: int) -> dict[str, Any]:
        """Return what is stored of a job."""
        return {"job_id": job_id, **self._stored}

    def read_job_id(self, stored: Any) -> int | None:
        """Return the job that an earlier try of this very start stored; ``None`` if it is of another one."""
        return self._number_in(stored, "job_id")

    def keep_intent(self, newest_job_id: int) -> None:
        """
        Store that a start is about to be sent.

        :param newest_job_id: The id of the agent's newest job before it.
        """
        if self._state is not None:
            self._state.set(INTENT_KEY, {"newest_job_id": newest_job_id, "at": time.time(), **self._stored})

    def drop_intent(self) -> None:
        """Store that the start which was about to be sent has certainly not arrived."""
        if self._state is not None:
            self._state.set(INTENT_KEY, {})

    def read_intent(self) -> Intent | None:
        """
        Return the intent of an earlier try whose outcome nobody stored; ``None`` if there is none.

        A newer job in the store settles an intent: a retry after an aborted job must not take that job up again.
        """
        if self._state is None:
            return None
        stored = self._state.get(INTENT_KEY)
        newest_job_id = self._number_in(stored, "newest_job_id")
        if newest_job_id is None or not isinstance(stored.get("at"), int | float):
            return None
        job_id = self.read_job_id(self._state.get(JOB_KEY))
        if job_id is not None and job_id > newest_job_id:
            return None
        return Intent(newest_job_id, max(time.time() - stored["at"], 0.0))

    def _number_in(self, stored: Any, name: str) -> int | None:
        number = stored.get(name) if _is_of(stored, self._of) else None
        return number if isinstance(number, int) else None


def offset_in(stored: Any, of: Mapping[str, Any]) -> int:
    """
    Return how many lines of a log were copied, by what was stored of that; 0 if it is of something else, or no use.

    :param of: The job, and the tries or the try, that it has to be of.
    """
    offset = stored.get("offset") if _is_of(stored, of) else None
    return offset if isinstance(offset, int) else 0


def _is_of(stored: Any, of: Mapping[str, Any]) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(stored, Mapping) and {**stored, **of} == stored


class LogMemory:
    """
    The memory of the copy of a job's log, across the tries of one task instance.

    An error in it costs lines that come twice, never the wait.

    :param job_id: The job: what was stored for another one does not count.
    """

    def __init__(self, context: Context, job_id: int) -> None:
        self._store: Any = context.get("task_state_store")
        self._of = {"job_id": job_id, **stamp_of_tries(context)}

    @property
    def is_there(self) -> bool:
        """Whether this Airflow can remember anything."""
        return self._store is not None

    def read_offset(self) -> int:
        """Return how many lines of the log were copied, in this process or in another one."""
        try:
            stored = self._store.get(LOG_KEY) if self.is_there else None
        except Exception as error:
            log.warning(
                "The position in the job's log could not be read, so the log is copied from its start: %s", error
            )
            return 0
        return offset_in(stored, self._of)

    def keep_offset(self, offset: int) -> None:
        """Store how many lines of the log are copied."""
        if self.is_there:
            try:
                self._store.set(LOG_KEY, {**self._of, "offset": offset})
            except Exception as error:
                log.warning("The position in the job's log could not be stored: %s", error)


class ShownProgress:
    """The progress of a job in the task state store: Airflow's UI shows it while the task waits (3.3 and later)."""

    def __init__(self, context: Context) -> None:
        store: Any = context.get("task_state_store")
        self._store = None if isinstance(store, VariableState) else store
        self._shown = ""
        self._shown_at = -math.inf

    def show(self, job: Job) -> None:
        """Store it if it has changed: a job that goes on at most every 30 seconds, its end at once."""
        now, progress = time.monotonic(), f"Job {job.job_id} is {job.describe()}"
        is_due = job.is_terminal or now >= self._shown_at + SECONDS_BETWEEN_PROGRESS
        if self._store is None or not is_due or progress == self._shown:
            return
        self._shown, self._shown_at = progress, now
        try:
            self._store.set(PROGRESS_KEY, progress)
        except Exception as error:
            log.debug("The progress of job %d could not be stored: %s", job.job_id, error)


class ChangeMemory:
    """
    The memory of how a job changes, across the pokes of one try: each poke is a process of its own.

    An error in it makes the count begin anew, and never ends the wait.

    :param job_id: The job: what was stored for another one does not count.
    """

    def __init__(self, context: Context, job_id: int) -> None:
        self._store: Any = context.get("task_state_store")
        task_instance: Any = context["ti"]
        self._of = {"job_id": job_id, "try_number": task_instance.try_number, **stamp_of_tries(context)}

    def read(self) -> tuple[float | None, list[Any] | None, float]:
        """Return when the job was first seen, its figures, and since when they are the same."""
        try:
            stored = self._store.get(CHANGE_KEY) if self._store is not None else None
            if _is_of(stored, self._of):
                return float(stored["first_seen"]), list(stored["figures"]), float(stored["unchanged_since"])
        except Exception as error:
            log.warning(
                "The time of the job's last change could not be read, so stall_timeout counts from now on: %s", error
            )
        return None, None, 0.0

    def keep(self, first_seen: float, figures: list[Any], unchanged_since: float) -> None:
        """
        Store a change.

        :param first_seen: When the job was first seen, in seconds since the epoch.
        :param figures: Its state and figures.
        :param unchanged_since: Since when they are the same.
        """
        if self._store is None:
            return
        changed = {"first_seen": first_seen, "figures": figures, "unchanged_since": unchanged_since}
        try:
            self._store.set(CHANGE_KEY, {**self._of, **changed})
        except Exception as error:
            log.warning("The time of the job's last change could not be stored: %s", error)
