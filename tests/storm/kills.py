"""The ways in which the storm ends Airflow's processes, each with a weight."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from tests.airflow_harness.processes import Component

_TASK_TITLE = re.compile(r"airflow worker -- ([0-9a-f]{8}-[\w-]+)|airflow task runner: (\S+ \S+ \S+)")
"""How Airflow 3 and Airflow 2 call the process that executes a task's code."""


@dataclass(frozen=True)
class Kill:
    """
    :param strike: does it, and says to what; ``None`` if there was nothing to do it to. It gets the Airflow, and a
        number from 0 to 1 that chooses among its tasks.
    :param component: the one that has to be started again.
    """

    name: str
    weight: int
    strike: Callable[[Any, float], str | None]
    component: str | None = None


def bring_back(component: Component) -> None:
    """Start a component again; one that was asked to end and has not yet is ended."""
    if component.is_running:
        component.stop(timeout=10)
    component.start()


def _task(number: signal.Signals) -> Callable[[Any, float], str | None]:
    def strike(airflow: Any, choice: float) -> str | None:
        pid, task = _any_task(airflow, choice)
        return task if pid and _send(pid, number) else None

    return strike


def _worker(number: signal.Signals) -> Callable[[Any, float], str | None]:
    def strike(airflow: Any, choice: float) -> str | None:
        pid, task = _any_task(airflow, choice)
        with contextlib.suppress(psutil.Error):
            worker = psutil.Process(pid).ppid() if pid else 0
            # The worker may have gone first: its task is then a child of something else.
            if worker in airflow.scheduler.processes() and worker != airflow.scheduler.pid and _send(worker, number):
                return task
        return None

    return strike


def _alone(name: str, number: signal.Signals) -> Callable[[Any, float], str | None]:
    return lambda airflow, _choice: name if _send(getattr(airflow, name).pid, number) else None


def _machine(name: str) -> Callable[[Any, float], str | None]:
    def strike(airflow: Any, _choice: float) -> str | None:
        getattr(airflow, name).kill()
        return name

    return strike


def running_tasks(airflow: Any) -> Mapping[int, str]:
    """Return the processes that execute the code of tasks now, with what Airflow calls the task."""
    found = {}
    for pid in airflow.scheduler.processes():
        with contextlib.suppress(psutil.Error):
            if title := _TASK_TITLE.search(" ".join(psutil.Process(pid).cmdline())):
                found[pid] = title[1] or title[2]
    return found


def _any_task(airflow: Any, choice: float) -> tuple[int | None, str]:
    tasks = sorted(running_tasks(airflow).items())
    return tasks[int(choice * len(tasks))] if tasks else (None, "")


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


KILLS = (
    Kill("a task is killed", 10, _task(signal.SIGKILL)),
    Kill("a task is asked to go", 4, _task(signal.SIGTERM)),
    Kill("a task's worker is killed", 3, _worker(signal.SIGKILL)),
    Kill("a task's worker is asked to go", 3, _worker(signal.SIGTERM)),
    Kill("the triggerer is killed", 2, _machine("triggerer"), "triggerer"),
    Kill("the triggerer is asked to go", 2, _alone("triggerer", signal.SIGTERM), "triggerer"),
    Kill("the scheduler is killed, its tasks live on", 1, _alone("scheduler", signal.SIGKILL), "scheduler"),
    Kill("the scheduler is killed with its tasks", 1, _machine("scheduler"), "scheduler"),
    Kill("the scheduler is asked to go", 1, _alone("scheduler", signal.SIGTERM), "scheduler"),
)
