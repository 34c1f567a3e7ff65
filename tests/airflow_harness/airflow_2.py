"""An Airflow 2 of one's own: what :class:`AirflowInstance` is for Airflow 3, as far as tests need it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from tests.airflow_harness.airflow_api import USER, Run, TaskInstance
from tests.airflow_harness.airflow_instance import AIRFLOW, START_SECONDS
from tests.airflow_harness.airflow_settings import Settings, fernet_key, unused_log_ports, write_configuration
from tests.airflow_harness.processes import Component, Watchdog, end_components, free_ports, inherited_environment, poll


class Airflow2:
    """
    Scheduler, triggerer and web server over SQLite, gone with all their processes at the end of the ``with`` block.

    :param home: the ``AIRFLOW_HOME``, an empty folder.
    :param dags_folder: where the DAG files are.
    :param env: environment variables for all components.
    :param settings: Airflow settings that win over the instance's own: section, name, value.
    """

    webserver: Component
    scheduler: Component
    triggerer: Component

    def __init__(self, home: Path, *, dags_folder: Path, env: dict[str, str], settings: Settings | None = None) -> None:
        (port,) = free_ports(1)
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        # `airflow users create` takes one that begins with a dash for an option.
        self.password = secrets.token_hex(24)
        self._environment = {
            **inherited_environment(),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
            # LocalExecutor over SQLite, which is good enough for a few tasks.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            # The web server starts others by their names.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **env,
        }
        self._settings = self._own_settings(port, dags_folder)
        self._change_settings(settings or {})
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = (USER, self.password)

    def _own_settings(self, port: int, dags_folder: Path) -> dict[str, dict[str, str]]:
        return {
            "core": {
                "dags_folder": str(dags_folder),
                "load_examples": "False",
                "dags_are_paused_at_creation": "False",
                "executor": "LocalExecutor",
                "parallelism": "4",
                "fernet_key": fernet_key(),
                "hostname_callable": "socket.gethostname",
                "test_connection": "Enabled",
            },
            "database": {"sql_alchemy_conn": f"sqlite:///{self.home}/airflow.db"},
            "logging": {"base_log_folder": str(self.home / "logs"), **unused_log_ports()},
            "webserver": {
                "web_server_host": "127.0.0.1",
                "web_server_port": str(port),
                "base_url": self.url,
                "workers": "1",
                "secret_key": secrets.token_hex(32),
            },
            "api": {"auth_backends": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session"},
            "scheduler": {"scheduler_idle_sleep_time": "0.5", "enable_health_check": "False"},
            "usage_data_collection": {"enabled": "False"},
        }

    def _change_settings(self, settings: Settings) -> None:
        for section, values in settings.items():
            self._settings.setdefault(section, {}).update(values)
        write_configuration(self.home / "airflow.cfg", self._settings)

    def restart_scheduler(self, settings: Settings) -> None:
        """Change settings for the scheduler and the tasks, which are its children."""
        self.scheduler.stop()
        self._change_settings(settings)
        self.scheduler.start()

    def __enter__(self) -> Self:
        self._run("db", "migrate")
        who = ("--username", USER, "--password", self.password, "--firstname", "A", "--lastname", "B")
        self._run("users", "create", "--role", "Admin", "--email", "admin@example.org", *who)
        self._watchdog = Watchdog()
        self._components = [
            Component(
                command[0],
                [*AIRFLOW, *command],
                environment=self._environment,
                log_path=self.home / f"{command[0]}.log",
                watchdog=self._watchdog,
            )
            for command in (["webserver"], ["scheduler", "--skip-serve-logs"], ["triggerer", "--skip-serve-logs"])
        ]
        self.webserver, self.scheduler, self.triggerer = self._components
        try:
            for component in self._components:
                component.start()
            self._wait(self._is_healthy, "Airflow is not up")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def _stop(self) -> None:
        end_components(self._components)
        self._watchdog.close()

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [*AIRFLOW, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _is_healthy(self) -> bool:
        try:
            health = self.call("GET", "health")
        except requests.ConnectionError:
            return False
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "triggerer"))

    def _wait(self, condition: Any, problem: str, timeout: float = START_SECONDS) -> None:
        def check() -> None:
            for component in self._components:
                component.check()

        if poll(lambda: condition() or None, timeout, check=check, interval=0.5) is None:
            raise AssertionError(f"{problem} after {timeout:.0f} s. See the logs in {self.home}.")

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Make any call of the API; what comes after ``/api/v1/`` is the path."""
        answer = self._session.request(method, f"{self.url}/api/v1/{path}", timeout=60, **arguments)
        answer.raise_for_status()
        return answer.json()

    def _knows(self, dag_id: str) -> bool:
        return self._session.get(f"{self.url}/api/v1/dags/{dag_id}", timeout=60).ok

    def add_connection(self, connection_id: str, fields: dict[str, Any]) -> None:
        self.call("POST", "connections", json={"connection_id": connection_id, **fields})

    def wait_for_dag(self, dag_id: str) -> None:
        self._wait(lambda: self._knows(dag_id), f"The DAG {dag_id} is not there")

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> Run:
        self.wait_for_dag(dag_id)
        return Run(dag_id, self.call("POST", f"dags/{dag_id}/dagRuns", json={"conf": conf or {}})["dag_run_id"])

    def wait_for_run(self, run: Run) -> str:
        path = f"dags/{run.dag_id}/dagRuns/{run.run_id}"
        self._wait(lambda: self.call("GET", path)["state"] in {"success", "failed"}, f"{run} has not ended")
        return str(self.call("GET", path)["state"])

    def task_instance(self, run: Run, task_id: str, *, map_index: int = -1) -> TaskInstance:
        answer = self.call("GET", _task_path(run, task_id) + (f"/{map_index}" if map_index >= 0 else ""))
        # Airflow 2 knows a task instance by its names only.
        return TaskInstance.from_answer({"id": "", **answer})

    def wait_for_task(
        self,
        run: Run,
        task_id: str,
        states: Collection[str],
        *,
        map_index: int = -1,
        timeout: float = START_SECONDS,
    ) -> None:
        def reached() -> bool:
            try:
                return self.task_instance(run, task_id, map_index=map_index).state in states
            except requests.HTTPError:  # It is not there yet.
                return False

        self._wait(reached, f"{task_id} is in none of {states}", timeout)

    def xcom(self, run: Run, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value of an XCom, as text."""
        return self.call("GET", f"{_task_path(run, task_id)}/xcomEntries/{key}", params={"map_index": map_index})[
            "value"
        ]

    def pids_of_task(self, run: Run, task_id: str, *, map_index: int = -1) -> list[int]:
        """Return the ids of the processes that execute a task's code now; of any of its mapped ones."""
        title = f"airflow task runner: {run.dag_id} {task_id} {run.run_id}"
        return [pid for pid in self.scheduler.processes() if title in " ".join(psutil.Process(pid).cmdline())]


def _task_path(run: Run, task_id: str) -> str:
    return f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}"
