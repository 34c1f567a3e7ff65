"""A whole Airflow of one's own: scheduler, DAG processor, triggerer and API server over SQLite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.airflow_harness.airflow_api import AirflowApi, Run, TaskInstance
from tests.airflow_harness.airflow_settings import (
    USER,
    AirflowAddress,
    Settings,
    component_commands,
    settings_of,
    worker_command,
    write_configuration,
)
from tests.airflow_harness.machines import Machine
from tests.airflow_harness.processes import (
    Component,
    ProcessError,
    Watchdog,
    end_components,
    every,
    free_ports,
    inherited_environment,
    without_proxy,
)

START_SECONDS = 300.0
"""How long the components may take to come up: 15 on two idle cores, minutes on crowded ones."""

TASK_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
RUN_ENDED = frozenset({"success", "failed"})

_AIRFLOW = [sys.executable, "-m", "airflow"]
_POLL_SECONDS = 0.2
_TASK_TITLE = re.compile(r"airflow worker -- ([\w-]+)")
_T = TypeVar("_T")


class AirflowInstanceError(Exception):
    """The Airflow could not be started, or what was waited for did not happen."""


class AirflowInstance:
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
    :param dags_folder: where the DAG files are; default ``<home>/dags``, which is then made.
    :param env: environment variables for all components, such as ``AIRFLOW_CONN_AGENTY_DEFAULT``.
    :param without: environment variables of this process that the components do not get.
    :param settings: Airflow settings that win over the instance's own: section, name, value.
    :param database_template: a file that keeps the migrated, empty database. Made when it is not there, copied
        when it is, which saves the migration. Belongs to one version of Airflow.
    :param workers: how many Celery workers there are; ``settings`` then name the CeleryExecutor, its broker and a
        database that is no file. Each worker, and the triggerer, is on a `Machine` of its own, below ``machines`` in
        ``home``; the workers do not know the database.
    """

    api_server: Component
    scheduler: Component
    dag_processor: Component
    triggerer: Component
    workers: list[Component]

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        without: Collection[str] = (),
        settings: Settings | None = None,
        database_template: Path | None = None,
        workers: int = 0,
    ) -> None:
        self.home = home.absolute()
        self._given_dags_folder = dags_folder
        self._extra_environment = dict(env or {})
        self._without = frozenset(without)
        self._overrides = settings or {}
        self._database_template = database_template
        self._worker_names = [f"worker-{number}" for number in range(1, workers + 1)]
        self._machines: dict[str, Machine] = {}
        self._components: list[Component] = []
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        try:
            self._prepare()
            for component in self._components:
                component.start()
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the UI and the REST API are."""
        return self._address.url

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        return self._address.password

    @property
    def dags_folder(self) -> Path:
        """Where this Airflow looks for DAG files."""
        return self._dags_folder

    @property
    def api(self) -> AirflowApi:
        """The REST API, for calls that this class has no method for."""
        return self._api

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes any ``airflow`` command speak to this instance."""
        return dict(self._environment)

    def stop(self) -> None:
        """End every process of this Airflow. Does nothing when it was not started."""
        end_components(self._components)
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    # What there is to do with DAGs and runs

    def wait_for_dag(self, dag_id: str, timeout: float = 120.0) -> None:
        """
        Wait until a DAG has been read.

        :param timeout: seconds.
        :raises AirflowInstanceError: when it cannot be imported or does not appear in time.
        """
        if self._poll(lambda: self._api.dag_is_known(dag_id) or None, timeout, self._raise_import_errors):
            return
        raise AirflowInstanceError(
            f"The DAG {dag_id!r} did not appear within {timeout:.0f} s. The DAG processor's log is "
            f"{self.dag_processor.log_path}."
        )

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> Run:
        """
        Start a run of a DAG, waiting first until the DAG has been read.

        :param conf: overrides of the DAG's params.
        :param run_id: its name; by default Airflow makes one.
        :return: the run, for the other methods.
        """
        self.wait_for_dag(dag_id)
        return self._api.trigger(dag_id, conf, run_id)

    def wait_for_run(self, run: Run, timeout: float = 300.0) -> str:
        """
        Wait until a run has ended.

        :param timeout: seconds.
        :return: its state, ``success`` or ``failed``.
        :raises AirflowInstanceError: when it has not ended in time.
        """
        state = self._poll(lambda: _if_in(self.run_state(run), RUN_ENDED), timeout)
        if state is None:
            raise AirflowInstanceError(
                f"The run {run.run_id} of {run.dag_id} had not ended after {timeout:.0f} s. "
                f"Its tasks: {self._describe_tasks(run)}."
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
    ) -> TaskInstance:
        """
        Wait until a task is in one of the states.

        :param states: what to wait for; by default until it has ended.
        :param try_number: only this try counts.
        :param timeout: seconds.
        :return: the task instance as it then was.
        :raises AirflowInstanceError: when it was in none of them in time.
        """

        def reached() -> TaskInstance | None:
            for task in self.task_instances(run):
                if (task.task_id, task.map_index) == (task_id, map_index) and task.state in states:
                    return task if try_number in (None, task.try_number) else None
            return None

        task = self._poll(reached, timeout)
        if task is None:
            raise AirflowInstanceError(
                f"The task {task_id} of {run.dag_id}, {run.run_id}, was in none of {sorted(states)} within "
                f"{timeout:.0f} s. The tasks: {self._describe_tasks(run)}."
            )
        return task

    def run_state(self, run: Run) -> str:
        """Return the state of a run."""
        return self._api.run_state(run)

    def task_instances(self, run: Run) -> list[TaskInstance]:
        """Return every task instance of a run."""
        return self._api.task_instances(run)

    def task_instance(self, run: Run, task_id: str, *, map_index: int = -1) -> TaskInstance:
        """Return one task instance."""
        return self._api.task_instance(run, task_id, map_index)

    def clear(self, run: Run, task_id: str, *, map_index: int = -1, include_downstream: bool = False) -> list[str]:
        """
        Clear a task so that it runs again, and return the ids of the tasks that were cleared.

        Where the end of the task also ends the run, wait for the run first: a task that is cleared just before the
        scheduler ends the run is never scheduled again.
        """
        return self._api.clear(run, task_id, map_index=map_index, include_downstream=include_downstream)

    def set_task_state(self, run: Run, task_id: str, state: str, *, map_index: int = -1) -> None:
        """Mark a task ``failed``, ``success`` or ``skipped``, as a person does in the UI."""
        self._api.set_task_state(run, task_id, state, map_index=map_index)

    def xcom(self, run: Run, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value of an XCom, or None when there is none."""
        return self._api.xcom(run, task_id, key, map_index=map_index)

    def task_log(self, run: Run, task_id: str, try_number: int = 1, *, map_index: int = -1) -> str:
        """Return the log of one try as the UI shows it, the triggerer's part included."""
        return self._api.task_log(run, task_id, try_number, map_index=map_index)

    def rendered_fields(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """Return the templated fields of a task as they were rendered."""
        return self._api.rendered_fields(run, task_id, map_index=map_index)

    def extra_links(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, str | None]:
        """Return the address behind each of a task's buttons, by the button's name."""
        return self._api.extra_links(run, task_id, map_index=map_index)

    def state_store(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """Return what a task keeps in its state store (Airflow 3.3 and later)."""
        return self._api.state_store(run, task_id, map_index=map_index)

    def task_log_files(self, run: Run, task: TaskInstance) -> list[Path]:
        """Return the files in which a task's tries, and the triggerer for them, write their logs."""
        folder = Path("logs", f"dag_id={run.dag_id}", f"run_id={run.run_id}", f"task_id={task.task_id}")
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        homes = [self.home, *(machine.home for machine in self._machines.values())]
        return sorted(file for home in homes for file in (home / folder).glob("attempt=*.log*"))

    def pids_of_task(self, run: Run, task_id: str, *, map_index: int = -1) -> list[int]:
        """
        Return the ids of the processes that execute a task's code now. Needs Linux.

        The worker that watches over such a process is its parent: `worker_pids_of_task`.
        """
        wanted = self._task_id(run, task_id, map_index)
        executors = [self.scheduler, *self.workers]
        return [pid for each in executors for pid, executed in _executed_tasks(each) if executed == wanted]

    def tasks_in(self, component: Component, run: Run) -> list[TaskInstance]:
        """
        Return the task instances of a run whose code the processes of a component execute now. Needs Linux.

        :param component: the scheduler, or one of the workers.
        """
        if not (executed := {task for _, task in _executed_tasks(component)}):
            return []
        return [task for task in self.task_instances(run) if task.id in executed and task.state == "running"]

    def worker_pids_of_task(self, run: Run, task_id: str, *, map_index: int = -1) -> list[int]:
        """Return the ids of the executor's processes that watch over a running task. Needs Linux."""
        return [_parent(pid) for pid in self.pids_of_task(run, task_id, map_index=map_index)]

    # How it is set up

    def _prepare(self) -> None:
        if not _is_airflow_3():
            raise AirflowInstanceError("This needs Airflow 3 or later: Airflow 2 has other components and another API.")
        api_port, *unused = free_ports(3)
        self._address = AirflowAddress(self.home, api_port, (unused[0], unused[1]))
        self._dags_folder = (self._given_dags_folder or self._address.dags_folder).absolute()
        settings = settings_of(self._address, self._dags_folder, self._overrides)
        self._clean_home(settings)
        self._set_up_machines(settings)
        self._environment = self._make_environment()
        self._api = AirflowApi(self._address.url, USER, self._address.password)
        self._make_database()
        self._watchdog = Watchdog()
        self._components = [self._component(name, args) for name, args in component_commands().items()]
        self.api_server, self.scheduler, self.dag_processor, self.triggerer = self._components
        self.workers = [self._component(name, worker_command(name)) for name in self._worker_names]
        self._components += self.workers

    def _clean_home(self, settings: Settings) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for leftover in (self._address.database, *self.home.glob("*.log"), *self.home.glob("airflow.db-*")):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(self.home / "logs", ignore_errors=True)
        self._dags_folder.mkdir(parents=True, exist_ok=True)
        write_configuration(self._address.configuration_file, settings)
        self._address.passwords_file.touch(mode=0o600)
        self._address.passwords_file.write_text(json.dumps({USER: self._address.password}))

    def _set_up_machines(self, settings: Settings) -> None:
        apart = ["triggerer", *self._worker_names] if self._worker_names else []
        self._machines = {name: Machine(self.home / "machines" / name) for name in apart}
        for name, machine in self._machines.items():
            machine.set_up(settings, self._dags_folder, with_database=name not in self._worker_names)

    def _make_environment(self) -> dict[str, str]:
        inherited = inherited_environment(self._without)
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self._address.configuration_file),
            "NO_PROXY": without_proxy(inherited),
            "no_proxy": without_proxy(inherited),
            "PYTHONUNBUFFERED": "1",
            **self._extra_environment,
        }

    def _make_database(self) -> None:
        template = self._database_template
        if template is not None and template.exists():
            shutil.copyfile(template, self._address.database)
            return
        migration = subprocess.run(
            [*_AIRFLOW, "db", "migrate"],
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
            template.parent.mkdir(parents=True, exist_ok=True)
            half_made = template.with_name(f"{template.name}.{os.getpid()}")
            shutil.copyfile(self._address.database, half_made)
            half_made.replace(template)

    def _component(self, name: str, arguments: list[str]) -> Component:
        assert self._watchdog is not None
        machine = self._machines.get(name)
        return Component(
            name,
            [*_AIRFLOW, *arguments],
            environment={**self._environment, **(machine.environment if machine else {})},
            log_path=self.home / f"{name.lower().replace(' ', '-')}.log",
            watchdog=self._watchdog,
        )

    def _wait_until_healthy(self) -> None:
        # The part of the API server that tasks speak to is built on its first request, which takes seconds:
        # made now, they pass while the other components start.
        self._poll(self._api.execution_api_answers, START_SECONDS)
        if not self._poll(lambda: _all_healthy(self._api.health()) or None, START_SECONDS):
            logs = ", ".join(str(component.log_path) for component in self._components)
            raise AirflowInstanceError(
                f"Airflow was not up after {START_SECONDS:.0f} s: {self._api.health()}. See {logs}."
            )

    # How it is observed

    def _poll(
        self, look: Callable[[], _T | None], timeout: float, check: Callable[[], None] | None = None
    ) -> _T | None:
        for _ in every(_POLL_SECONDS, until=time.monotonic() + timeout):
            if (seen := look()) is not None:
                return seen
            self.check()
            if check is not None:
                check()
        return None

    def check(self) -> None:
        """
        Raise when a component has ended by itself.

        :raises AirflowInstanceError: with the end of its output.
        """
        try:
            for component in self._components:
                component.check()
        except ProcessError as error:
            raise AirflowInstanceError(str(error)) from None

    def _raise_import_errors(self) -> None:
        if errors := self._api.import_errors():
            raise AirflowInstanceError("\n".join(["Airflow cannot import a DAG file:", *errors]))

    def _describe_tasks(self, run: Run) -> str:
        return ", ".join(f"{task.label} {task.state or 'waiting'}" for task in self.task_instances(run))

    def _task_id(self, run: Run, task_id: str, map_index: int) -> str:
        return self._api.task_instance(run, task_id, map_index).id


def _all_healthy(health: dict[str, Any] | None) -> bool:
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    return health is not None and all(health[part]["status"] == "healthy" for part in parts)


def _if_in(value: str, wanted: Collection[str]) -> str | None:
    return value if value in wanted else None


def _executed_tasks(component: Component) -> Iterator[tuple[int, str]]:
    """Yield each process of a component that executes a task, with the id of the task instance."""
    for pid in component.processes():
        if title := _TASK_TITLE.search(_command_line(pid)):
            yield pid, title[1]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _is_airflow_3() -> bool:
    # Airflow is not imported in this process: it would read the user's own settings, and log on the way.
    airflow = find_spec("airflow")
    folders = airflow.submodule_search_locations if airflow else None
    return any(Path(folder, "sdk").is_dir() for folder in folders or ())


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(stat.rpartition(")")[2].split()[1])
