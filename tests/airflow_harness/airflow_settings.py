"""How an Airflow of one's own has to be set up."""

from __future__ import annotations

import base64
import configparser
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.airflow_harness.airflow_api import USER
from tests.airflow_harness.processes import free_ports

Settings = Mapping[str, Mapping[str, str]]
"""Airflow settings as in ``airflow.cfg``: section, name, value."""


LONG_LOCK_TIMEOUT = "?timeout=30"
"""What makes a component wait for SQLite's lock for longer than 5 s: on a crowded machine it would end."""


def settings_of(home: Path, port: int, dags_folder: Path, overrides: Settings) -> dict[str, dict[str, str]]:
    """
    Return all settings of an Airflow that serves only this machine and reacts quickly.

    :param home: the ``AIRFLOW_HOME``.
    :param port: of the API server.
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
            "fernet_key": fernet_key(),
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": str(home / "passwords.json"),
            "execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
            "hostname_callable": "socket.gethostname",
            "test_connection": "Enabled",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}{LONG_LOCK_TIMEOUT}"},
        "logging": {
            "base_log_folder": str(home / "logs"),
            "colored_console_log": "False",
            **unused_log_ports(),
        },
        "api": {
            "host": "127.0.0.1",
            "port": str(port),
            "base_url": f"http://127.0.0.1:{port}",
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
        # A process that a killed task has started may live on and hold its sockets. That is not worth a minute's wait.
        "workers": {"socket_cleanup_timeout": "5"},
        "usage_data_collection": {"enabled": "False"},
    }
    for section, values in overrides.items():
        own.setdefault(section, {}).update(values)
    return own


def fernet_key() -> str:
    """Return a new key for the secrets in Airflow's database."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def unused_log_ports() -> dict[str, str]:
    """
    Return the settings of two ports on which nothing listens.

    Airflow asks them for the logs of running tasks, which it finds in its own folder. With the default ports it would
    ask another Airflow of this machine.
    """
    worker, triggerer = free_ports(2)
    return {"worker_log_server_port": str(worker), "trigger_log_server_port": str(triggerer)}


def write_configuration(path: Path, settings: Settings) -> None:
    """Write an ``airflow.cfg`` that only its owner can read."""
    parser = configparser.RawConfigParser()
    for section, values in settings.items():
        parser[section] = {name: value.replace("%", "%%") for name, value in values.items()}
    path.touch(mode=0o600)
    with path.open("w") as file:
        parser.write(file)


def set_up_machine(home: Path, settings: Settings, dags_folder: Path, *, with_database: bool) -> dict[str, str]:
    """
    Make a folder that stands for a machine: what runs there has no folder in common with others.

    :param home: the ``AIRFLOW_HOME`` there. What an earlier machine left in it is replaced.
    :param settings: those of the Airflow that the machine is part of.
    :param dags_folder: where that Airflow's DAG files are; they are copied.
    :param with_database: whether what runs here may use Airflow's database. Since Airflow 3 workers need not: they know
        only the API server and the broker.
    :return: the environment variables that make a component run there.
    """
    shutil.rmtree(home, ignore_errors=True)
    (home / "tmp").mkdir(parents=True)
    shutil.copytree(dags_folder, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    here = {section: dict(values) for section, values in settings.items()}
    here["core"]["dags_folder"] = str(home / "dags")
    here["logging"]["base_log_folder"] = str(home / "logs")
    if not with_database:
        del here["database"]
    write_configuration(home / "airflow.cfg", here)
    return {"AIRFLOW_HOME": str(home), "AIRFLOW_CONFIG": str(home / "airflow.cfg"), "TMPDIR": str(home / "tmp")}
