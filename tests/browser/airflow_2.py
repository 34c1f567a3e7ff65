"""An Airflow 2 of one's own, and its pages: what there is for Airflow 3, as far as these tests need it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import requests

from tests.airflow_harness.airflow_api import USER, Run
from tests.airflow_harness.airflow_instance import AIRFLOW, START_SECONDS
from tests.airflow_harness.airflow_settings import fernet_key, unused_log_ports, write_configuration
from tests.airflow_harness.processes import Component, Watchdog, end_components, free_ports, inherited_environment, poll


class Airflow2:
    """
    Scheduler, triggerer and web server over SQLite, gone with all their processes at the end of the ``with`` block.

    :param home: the ``AIRFLOW_HOME``, an empty folder.
    :param dags_folder: where the DAG files are.
    :param env: environment variables for all components.
    """

    def __init__(self, home: Path, *, dags_folder: Path, env: dict[str, str]) -> None:
        (port,) = free_ports(1)
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.password = secrets.token_urlsafe(24)
        self._environment = {
            **inherited_environment(),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
            # The web server starts others by their names.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **env,
        }
        write_configuration(home / "airflow.cfg", self._settings(port, dags_folder))
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = (USER, self.password)

    def _settings(self, port: int, dags_folder: Path) -> dict[str, dict[str, str]]:
        return {
            "core": {
                "dags_folder": str(dags_folder),
                "load_examples": "False",
                "dags_are_paused_at_creation": "False",
                "executor": "SequentialExecutor",
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
            health = self._call("GET", "health")
        except requests.ConnectionError:
            return False
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "triggerer"))

    def _wait(self, condition: Any, problem: str, timeout: float = START_SECONDS) -> None:
        def check() -> None:
            for component in self._components:
                component.check()

        if poll(lambda: condition() or None, timeout, check=check, interval=0.5) is None:
            raise AssertionError(f"{problem} after {timeout:.0f} s. See the logs in {self.home}.")

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._session.request(method, f"{self.url}/api/v1/{path}", timeout=60, **arguments)
        answer.raise_for_status()
        return answer.json()

    def _knows(self, dag_id: str) -> bool:
        return self._session.get(f"{self.url}/api/v1/dags/{dag_id}", timeout=60).ok

    def add_connection(self, connection_id: str, fields: dict[str, Any]) -> None:
        self._call("POST", "connections", json={"connection_id": connection_id, **fields})

    def trigger(self, dag_id: str) -> Run:
        self._wait(lambda: self._knows(dag_id), f"The DAG {dag_id} is not there")
        return Run(dag_id, self._call("POST", f"dags/{dag_id}/dagRuns", json={"conf": {}})["dag_run_id"])

    def wait_for_run(self, run: Run) -> str:
        path = f"dags/{run.dag_id}/dagRuns/{run.run_id}"
        self._wait(lambda: self._call("GET", path)["state"] in {"success", "failed"}, f"{run} has not ended")
        return str(self._call("GET", path)["state"])

    def wait_for_task(self, run: Run, task_id: str, states: set[str], *, map_index: int = -1) -> None:
        path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}"
        path += f"/{map_index}" if map_index >= 0 else ""

        def reached() -> bool:
            answer = self._session.get(f"{self.url}/api/v1/{path}", timeout=60)
            return answer.ok and answer.json()["state"] in states

        self._wait(reached, f"{task_id} is in none of {states}")


class Airflow2Pages:
    """
    The pages of an Airflow 2, with the methods of :class:`tests.browser.airflow_3.AirflowPages`.

    :param page: the browser's page, on which they are opened.
    :param url: where that Airflow is.
    :param password: of the user ``admin``.
    """

    def __init__(self, page: Any, url: str, password: str) -> None:
        self.page = page
        self._url = url
        self._password = password

    def log_in(self) -> None:
        self.page.goto(f"{self._url}/login/")
        self.page.locator("#username").fill(USER)
        self.page.locator("#password").fill(self._password)
        self.page.get_by_role("button", name="Sign In").or_(self.page.locator("input[type=submit]")).first.click()
        self.page.wait_for_url(lambda url: "/login" not in url)

    def open_connection_form(self) -> Any:
        self.page.goto(f"{self._url}/connection/add", wait_until="load")
        self.page.get_by_role("combobox", name="Agenty").or_(self.page.locator("#select2-chosen-1")).first.wait_for()
        self.page.evaluate("$('#conn_type').val('agenty').trigger('change')")
        return self.page.locator("#model_form")

    def show_extra_fields(self, form: Any) -> None:
        """They are shown already."""

    def test_form(self) -> str:
        """Press the form's button "Test", and return what the page then says."""
        with self.page.expect_response(lambda response: "connections/test" in response.url):
            self.page.locator("#test-connection").click()
        alert = self.page.locator(".container .row .alert:visible")
        return str(alert.inner_text())

    def save_connection(self, form: Any) -> None:
        form.get_by_role("button", name="Save").click()
        self.page.wait_for_url(lambda url: "/connection/add" not in url)

    def open_edit_form(self, connection_id: str) -> Any:
        self.page.goto(f"{self._url}/connection/list/")
        self.page.get_by_role("row", name=connection_id).locator("a[href*='/connection/edit/']").click()
        return self.page.locator("#model_form")

    def link(self, run: Run, task_id: str, name: str, *, map_index: int = -1) -> str | None:
        where = f"dag_run_id={quote(run.run_id, safe='')}&task_id={task_id}"
        where += f"&map_index={map_index}" if map_index >= 0 else ""
        self.page.goto(f"{self._url}/dags/{run.dag_id}/grid?{where}&tab=details")
        href: str | None = self.page.get_by_role("link", name=name).first.get_attribute("href")
        return href
