"""The checks of ``doctor`` for this Airflow."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import NamedTuple

from airflow import __version__ as airflow
from airflow.configuration import conf

from airflow_provider_agenty import __version__
from airflow_provider_agenty.airflow_compat import HAS_TASK_STATE_STORE
from airflow_provider_agenty.api.background import in_background
from airflow_provider_agenty.commands.output import ERROR, OK, WARNING, Finding

OLDEST_AIRFLOW, NEWEST_AIRFLOW = (2, 11), (3, 3)
DATABASE_SECONDS = 10.0
LONGEST_JOB_DAYS = 7
"""What a start task waits at most, by default."""


class Database(NamedTuple):
    """The number of triggerers that are alive, and of tasks that are deferred, by Airflow's database."""

    triggerers: int
    deferred: int


def check_versions() -> Finding:
    """Tell the versions, and whether this Airflow is one that is tested."""
    numbers = tuple(int(number) for number in airflow.split(".")[:2])
    found = (
        f"Airflow {airflow}, Python {platform.python_version()}, airflow-provider-agenty {__version__}, "
        f"requests {version('requests')}."
    )
    if numbers < OLDEST_AIRFLOW:
        return Finding("versions", WARNING, f"{found} Airflow before 2.11 is not supported: upgrade it.")
    if numbers > NEWEST_AIRFLOW:
        return Finding("versions", WARNING, f"{found} So new an Airflow is not tested: upgrade the provider too.")
    return Finding("versions", OK, found)


def read_database() -> Database | Exception:
    """Ask Airflow's database; return the error where it can't be reached, as from Airflow 3's workers."""
    try:
        return in_background(_read_database).result(DATABASE_SECONDS)
    except Exception as error:
        return error


def _read_database() -> Database:
    from airflow.jobs.job import Job
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    running = select(Job).where(Job.job_type == "TriggererJob", Job.state == "running")
    deferred = select(func.count()).select_from(TaskInstance).where(TaskInstance.state == "deferred")
    with create_session() as session:
        triggerers = sum(job.is_alive() for job in session.scalars(running))
        return Database(triggerers, session.scalar(deferred) or 0)


def check_triggerer(database: Database | Exception) -> Finding:
    """Tell whether deferred tasks are waited for, and whether there is room for them."""
    if not isinstance(database, Database):
        return Finding(
            "triggerer",
            WARNING,
            f"Not checked: Airflow's database can't be read from here ({type(database).__name__}), as is usual on "
            "workers of Airflow 3. Run this where the scheduler runs.",
        )
    triggerers, deferred = database
    tasks = "1 task is deferred" if deferred == 1 else f"{deferred} tasks are deferred"
    if not triggerers:
        status = ERROR if deferred or _defers_by_default() else WARNING
        return Finding("triggerer", status, f"No triggerer runs, and {tasks}: start 'airflow triggerer'.")
    # Airflow 2 has another name for it.
    capacity = conf.getint("triggerer", "capacity", fallback=0) or conf.getint("triggerer", "default_capacity")
    found = f"{triggerers} running, with room for {triggerers * capacity} triggers, and {tasks}."
    if deferred >= triggerers * capacity:
        return Finding("triggerer", WARNING, f"{found} Run another one, or raise its capacity under [triggerer].")
    return Finding("triggerer", OK, found)


def check_deferrable() -> Finding:
    """Tell how tasks wait that do not say so."""
    how = "defer" if _defers_by_default() else "wait in a worker"
    return Finding("default_deferrable", OK, f"Tasks that do not set deferrable {how}: [operators] default_deferrable.")


def check_mapping() -> Finding:
    """Tell how many mapped tasks a list makes at most: one that is longer fails the task that returns it."""
    longest = conf.getint("core", "max_map_length", fallback=1024)
    return Finding("max_map_length", OK, f"A list maps to at most {longest} tasks: [core] max_map_length.")


def check_memory() -> Finding:
    """Tell where a start is remembered, so that a retry finds its job."""
    if not HAS_TASK_STATE_STORE:
        return _check_start_memory()
    days = conf.getint("state_store", "default_retention_days", fallback=30)
    if 0 < days < LONGEST_JOB_DAYS:
        text = f"A start is forgotten after {days} days: raise [state_store] default_retention_days."
        return Finding("task state store", WARNING, text)
    kept = f"for {days} days" if days else "without end"
    return Finding("task state store", OK, f"A start is remembered {kept}: [state_store] default_retention_days.")


def _check_start_memory() -> Finding:
    setting = str(conf.get("agenty", "start_memory", fallback="auto")).strip().lower()
    if setting == "variables":
        return Finding("start_memory", OK, "A start is remembered in an Airflow Variable: [agenty] start_memory.")
    if setting == "auto":
        text = (
            "A start is not remembered, so a retry looks for its job in Agenty's list: set [agenty] start_memory = "
            "variables."
        )
        return Finding("start_memory", WARNING, text)
    return Finding("start_memory", ERROR, "[agenty] start_memory is not known: set it to 'auto' or 'variables'.")


def _defers_by_default() -> bool:
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
