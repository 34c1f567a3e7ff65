"""How an Airflow of one's own has to be set up: the one place that knows what differs between versions."""

from __future__ import annotations

import base64
import configparser
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Settings = Mapping[str, Mapping[str, str]]
"""Airflow settings as in ``airflow.cfg``: section, name, value."""

USER = "admin"


@dataclass(frozen=True)
class AirflowAddress:
    """
    Where one Airflow lives: its folder and the ports that it uses.

    :param home: the ``AIRFLOW_HOME``.
    :param api_port: port of the API server, on the loopback interface.
    :param unused_ports: two ports on which nothing listens. Airflow asks them for the logs of running tasks,
        which it finds in its own folder; with the default ports it would ask another Airflow of this machine.
    :param password: of the user ``admin``.
    """

    home: Path
    api_port: int
    unused_ports: tuple[int, int]
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def dags_folder(self) -> Path:
        """Where this Airflow looks for DAG files unless it is told another folder."""
        return self.home / "dags"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.home / "airflow.db"

    @property
    def configuration_file(self) -> Path:
        """The ``airflow.cfg``."""
        return self.home / "airflow.cfg"

    @property
    def passwords_file(self) -> Path:
        """Where the API server reads the password."""
        return self.home / "passwords.json"


def component_commands() -> dict[str, list[str]]:
    """
    Return the arguments of ``airflow`` for each component, by the component's name.

    None of them serves log files over HTTP: all components share one folder, and the ports may be taken.
    """
    return {
        "api server": ["api-server"],
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "DAG processor": ["dag-processor"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
    }


def worker_command(name: str) -> list[str]:
    """
    Return the arguments of ``airflow`` for a Celery worker.

    :param name: what the workers' names at the broker are to differ in.
    """
    return ["celery", "worker", "--skip-serve-logs", "--celery-hostname", f"{name}@airflow"]


def settings_of(address: AirflowAddress, dags_folder: Path, overrides: Settings) -> dict[str, dict[str, str]]:
    """
    Return all settings of an Airflow that serves only this machine and reacts quickly.

    :param address: folder and ports.
    :param dags_folder: where its DAG files are.
    :param overrides: settings that win over the ones made here.
    """
    own = {
        "core": {
            "dags_folder": str(dags_folder),
            "load_examples": "False",
            "dags_are_paused_at_creation": "False",
            "executor": "LocalExecutor",
            "parallelism": "4",
            "fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": str(address.passwords_file),
            "execution_api_server_url": f"{address.url}/execution/",
            "hostname_callable": "socket.gethostname",
            "test_connection": "Enabled",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{address.database}"},
        "logging": {
            "base_log_folder": str(address.home / "logs"),
            "worker_log_server_port": str(address.unused_ports[0]),
            "trigger_log_server_port": str(address.unused_ports[1]),
            "colored_console_log": "False",
        },
        "api": {
            "host": "127.0.0.1",
            "port": str(address.api_port),
            "base_url": address.url,
            "workers": "1",
            "secret_key": secrets.token_hex(32),
            "maximum_page_limit": "1000",
            "log_fetch_timeout_sec": "1",
        },
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
        "scheduler": {"scheduler_idle_sleep_time": "0.5", "enable_health_check": "False"},
        "dag_processor": {
            "refresh_interval": "2",
            "bundle_refresh_check_interval": "1",
            "parsing_processes": "1",
        },
        # What a killed task has started may live on and hold its sockets: not worth a minute's wait.
        "workers": {"socket_cleanup_timeout": "5"},
        "usage_data_collection": {"enabled": "False"},
    }
    for section, values in overrides.items():
        own.setdefault(section, {}).update(values)
    return own


def write_configuration(path: Path, settings: Settings) -> None:
    """
    Write an ``airflow.cfg`` that only its owner can read.

    :param path: the file.
    :param settings: what to write.
    """
    parser = configparser.RawConfigParser()
    for section, values in settings.items():
        parser[section] = {name: value.replace("%", "%%") for name, value in values.items()}
    path.touch(mode=0o600)
    with path.open("w") as file:
        parser.write(file)
