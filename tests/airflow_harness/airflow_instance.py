"""A whole Airflow of one's own: scheduler, DAG processor, triggerer and API server over SQLite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from tests.airflow_harness.airflow_api import USER, AirflowApi, Run, TaskInstance
from tests.airflow_harness.airflow_settings import (
    LONG_LOCK_TIMEOUT,
    Settings,
    set_up_machine,
    settings_of,
    write_configuration,
)
from tests.airflow_harness.processes import (
    Component,
    ProcessError,
    Watchdog,
    end_components,
    free_ports,
    inherited_environment,
    poll,
)

START_SECONDS = 300.0
"""The longest that the components may take to come up. They take 15 on two idle cores, minutes on crowded ones."""

TASK_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
RUN_ENDED = frozenset({"success", "failed"})
AIRFLOW = [sys.executable, "-m", "airflow"]

_TASK_TITLE = re.compile(r"airflow worker -- ([\w-]+)")
_T = TypeVar("_T")


class AirflowInstanceError(Exception):
    """The Airflow could not be started, or what was waited for did not happen."""


class AirflowInstance(AirflowApi):
    """
    A real Airflow, started on entering a ``with`` block and gone with all its processes on leaving it.

    Each component is a process of its own that can be stopped, killed and started again::

        with AirflowInstance(Path("airflow-home"), dags_folder=Path("dags")) as airflow:
            run = airflow.trigger("books")
            airflow.wait_for_task(run, "wait", {"deferred"})
            airflow.triggerer.kill()
            airflow.triggerer.start()
            airflow.wait_for_run(run)

    No setting of the user's own Airflow is seen, neither from the environment nor from ``~/airflow``.

    :param home: the ``AIRFLOW_HOME``. What an earlier instance left in it is replaced.
    :param dags_folder: where the DAG files are.
    :param env: environment variables for all components, such as ``AIRFLOW_CONN_AGENTY_DEFAULT``.
    :param without: environment variables of this process that the components do not get.
    :param settings: Airflow settings that win over the instance's own: section, name, value.
    :param database_template: a file that keeps the migrated, empty database. Made when it is not there, copied
        when it is, which saves the migration. Belongs to one version of Airflow.
    :param workers: how many Celery workers there are; ``settings`` then name the CeleryExecutor, its broker and a
        database that is no file. Each worker and each triggerer is on a machine of its own (`set_up_machine`), below
        ``machines`` in ``home``; the workers do not know the database.
    :param schedulers: how many schedulers there are.
    :param triggerers: how many triggerers there are.
    """

    components: list[Component]
    api_server: Component
    scheduler: Component
    schedulers: list[Component]
    dag_processor: Component
    triggerer: Component
    triggerers: list[Component]
    workers: list[Component]

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path,
        env: Mapping[str, str],
        without: Collection[str] = (),
        settings: Settings | None = None,
        database_template: Path | None = None,
        workers: int = 0,
        schedulers: int = 1,
        triggerers: int = 1,
    ) -> None:
        (self._port,) = free_ports(1)
        super().__init__(self._port)
        self.home = home.absolute()
        self.dags_folder = dags_folder.absolute()
        self._settings = settings_of(self.home, self._port, self.dags_folder, settings or {})
        self._environment = {
            **inherited_environment(without),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self.home / "airflow.cfg"),
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        self._database_template = database_template
        self._worker_names = [f"worker-{number}" for number in range(1, workers + 1)]
        self._scheduler_names = _names("scheduler", schedulers)
        self._triggerer_names = _names("triggerer", triggerers)
        self.components = []
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        if not _is_airflow_3():
            raise AirflowInstanceError("This needs Airflow 3 or later: Airflow 2 has other components and another API.")
        try:
            self._make_home()
            self._make_database()
            self._make_components()
            for component in self.components:
                component.start()
            self._wait_until_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end_components(self.components)
        if self._watchdog is not None:
            self._watchdog.close()

    # What there is to do with DAGs and runs, beside what the API has

    def wait_for_dag(self, dag_id: str, timeout: float = 120.0) -> None:
        """
        Wait until a DAG has been read.

        :param timeout: seconds.
        :raises AirflowInstanceError: when it cannot be imported or does not appear in time.
        """

        def known() -> bool | None:
            if self.dag_is_known(dag_id):
                return True
            if errors := self.import_errors():
                raise AirflowInstanceError("\n".join(["Airflow cannot import a DAG file:", *errors]))
            return None

        if self._poll(known, timeout) is None:
            raise AirflowInstanceError(
                f"The DAG {dag_id!r} did not appear within {timeout:.0f} s. The DAG processor's log is "
                f"{self.dag_processor.log_path}."
            )

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> Run:
        """
        Start a run of a DAG, waiting first until the DAG has been read.

        :param conf: overrides of the DAG's params.
        :param run_id: its name; by default Airflow makes one.
        """
        self.wait_for_dag(dag_id)
        body = {"logical_date": None, "conf": conf or {}, **({"dag_run_id": run_id} if run_id else {})}
        return Run(dag_id, self.call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def wait_for_run(self, run: Run, timeout: float = 300.0) -> str:
        """
        Wait until a run has ended, and return its state, ``success`` or ``failed``.

        :param timeout: seconds.
        :raises AirflowInstanceError: when it has not ended in time.
        """

        def ended() -> str | None:
            state = self.run_state(run)
            return state if state in RUN_ENDED else None

        state = self._poll(ended, timeout)
        if state is None:
            raise AirflowInstanceError(
                f"The run {run.run_id} of {run.dag_id} had not ended after {timeout:.0f} s. {self._tasks_of(run)}"
            )
        return state

    def wait_for_task(
        self,
        run: Run,
        task_id: str,
        states: Collection[str] = TASK_ENDED,
        *,
        map_index: int = -1,
        try_number: int | None = None,
        timeout: float = 300.0,
    ) -> None:
        """
        Wait until a task is in one of the states.

        :param states: what to wait for; by default until it has ended.
        :param try_number: only this try counts.
        :param timeout: seconds.
        :raises AirflowInstanceError: when it was in none of them in time.
        """

        def reached() -> bool | None:
            for task in self.task_instances(run):
                if (task.task_id, task.map_index) == (task_id, map_index) and task.state in states:
                    return True if try_number in (None, task.try_number) else None
            return None

        if self._poll(reached, timeout) is None:
            raise AirflowInstanceError(
                f"The task {task_id} of {run.dag_id}, {run.run_id}, was in none of {sorted(states)} within "
                f"{timeout:.0f} s. {self._tasks_of(run)}"
            )

    def task_log_files(self, run: Run, task: TaskInstance) -> list[Path]:
        """Return the files in which a task's tries, and the triggerer for them, write their logs."""
        folder = self.home / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task.task_id}"
        return sorted(folder.glob("attempt=*.log*"))

    def pids_of_task(self, run: Run, task_id: str, *, map_index: int = -1) -> list[int]:
        """Return the ids of the processes that execute a task's code now (LocalExecutor)."""
        wanted = self.task_instance(run, task_id, map_index=map_index).id
        return [pid for pid, executed in _executed_tasks(self.scheduler) if executed == wanted]

    def worker_pids_of_task(self, run: Run, task_id: str) -> list[int]:
        """Return the ids of the executor's processes that watch over a running task."""
        return [psutil.Process(pid).ppid() for pid in self.pids_of_task(run, task_id)]

    def tasks_in(self, worker: Component, run: Run) -> list[TaskInstance]:
        """Return the task instances of a run whose code the processes of a worker execute now."""
        if not (executed := {task for _, task in _executed_tasks(worker)}):
            return []
        return [task for task in self.task_instances(run) if task.id in executed and task.state == "running"]

    def check(self) -> None:
        """
        Raise when a component has ended by itself.

        :raises AirflowInstanceError: with the end of its output.
        """
        try:
            for component in self.components:
                component.check()
        except ProcessError as error:
            raise AirflowInstanceError(str(error)) from None

    # How it is set up

    def _make_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for leftover in (*self.home.glob("*.log"), *self.home.glob("airflow.db*")):
            leftover.unlink()
        shutil.rmtree(self.home / "logs", ignore_errors=True)
        write_configuration(self.home / "airflow.cfg", self._settings)
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({USER: self.password}))

    def _make_database(self) -> None:
        database, template = self.home / "airflow.db", self._database_template
        if template is not None and template.exists():
            shutil.copyfile(template, database)
            return
        migration = subprocess.run(
            [*AIRFLOW, "db", "migrate"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if migration.returncode != 0:
            end = "\n".join((migration.stdout + migration.stderr).splitlines()[-30:])
            raise AirflowInstanceError(f"`airflow db migrate` failed in {self.home}:\n{end}")
        if template is not None:
            half_made = template.with_name(f"{template.name}.{os.getpid()}")
            shutil.copyfile(database, half_made)
            half_made.replace(template)

    def _make_components(self) -> None:
        self._watchdog = Watchdog()
        machines = {
            name: set_up_machine(
                self.home / "machines" / name,
                self._settings,
                self.dags_folder,
                with_database=name not in self._worker_names,
            )
            for name in ([*self._triggerer_names, *self._worker_names] if self._worker_names else [])
        }
        commands = {
            "api server": ["api-server"],
            "DAG processor": ["dag-processor"],
            # None serves log files over HTTP: the ports may be taken.
            **{name: ["scheduler", "--skip-serve-logs"] for name in self._scheduler_names},
            **{name: ["triggerer", "--skip-serve-logs"] for name in self._triggerer_names},
            **{
                name: ["celery", "worker", "--skip-serve-logs", "--celery-hostname", f"{name}@airflow"]
                for name in self._worker_names
            },
        }
        # While the API server waits for SQLite's lock, a request of its own may hold it (AirflowApi.call).
        database = self._settings["database"]["sql_alchemy_conn"].removesuffix(LONG_LOCK_TIMEOUT)
        environments = {"api server": {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database}, **machines}
        self.components = [
            Component(
                name,
                [*AIRFLOW, *arguments],
                environment=self._environment | environments.get(name, {}),
                log_path=self.home / f"{name.lower().replace(' ', '-')}.log",
                watchdog=self._watchdog,
            )
            for name, arguments in commands.items()
        ]
        named = {component.name: component for component in self.components}
        self.api_server, self.dag_processor = named["api server"], named["DAG processor"]
        self.schedulers = [named[name] for name in self._scheduler_names]
        self.triggerers = [named[name] for name in self._triggerer_names]
        self.workers = [named[name] for name in self._worker_names]
        self.scheduler, self.triggerer = self.schedulers[0], self.triggerers[0]

    def _wait_until_healthy(self) -> None:
        # The part of the API server that tasks speak to is built on its first request, which takes seconds:
        # made now, they pass while the other components start.
        self._poll(self.execution_api_answers, START_SECONDS)
        if not self._poll(lambda: _all_healthy(self.health()) or None, START_SECONDS):
            logs = ", ".join(str(component.log_path) for component in self.components)
            raise AirflowInstanceError(f"Airflow was not up after {START_SECONDS:.0f} s: {self.health()}. See {logs}.")

    def _poll(self, look: Callable[[], _T | None], timeout: float) -> _T | None:
        return poll(look, timeout, check=self.check)

    def _tasks_of(self, run: Run) -> str:
        tasks = ", ".join(f"{task.label} {task.state or 'waiting'}" for task in self.task_instances(run))
        return f"Its tasks: {tasks}."


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]


def _all_healthy(health: dict[str, Any] | None) -> bool:
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    return health is not None and all(health[part]["status"] == "healthy" for part in parts)


def _executed_tasks(component: Component) -> Iterator[tuple[int, str]]:
    """Yield each process of a component that executes a task, with the id of the task instance."""
    for pid in component.processes():
        try:
            command_line = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            continue
        if title := _TASK_TITLE.search(command_line):
            yield pid, title[1]


def _is_airflow_3() -> bool:
    # Airflow is not imported in this process: it would read the user's own settings, and log on the way.
    airflow = find_spec("airflow")
    folders = airflow.submodule_search_locations if airflow else None
    return any(Path(folder, "sdk").is_dir() for folder in folders or ())
