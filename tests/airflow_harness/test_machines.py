"""What stands for a machine has nothing in common with another one."""

from __future__ import annotations

import configparser

import pytest

from tests.airflow_harness.airflow_settings import set_up_machine

SETTINGS = {
    "core": {"dags_folder": "/elsewhere/dags", "executor": "CeleryExecutor"},
    "database": {"sql_alchemy_conn": "postgresql+psycopg2://airflow:secret@127.0.0.1/airflow"},
    "logging": {"base_log_folder": "/elsewhere/logs"},
}


@pytest.fixture
def dags(tmp_path):
    folder = tmp_path / "dags"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "books.py").write_text("# a DAG")
    return folder


def configuration(home):
    parser = configparser.RawConfigParser()
    parser.read(home / "airflow.cfg")
    return parser


def test_its_folders_are_its_own(tmp_path, dags):
    home = tmp_path / "worker"
    environment = set_up_machine(home, SETTINGS, dags, with_database=True)

    settings = configuration(home)
    assert settings["core"] == {"dags_folder": str(home / "dags"), "executor": "CeleryExecutor"}
    assert settings["logging"]["base_log_folder"] == str(home / "logs")
    assert settings["database"] == SETTINGS["database"]
    assert [path.name for path in (home / "dags").iterdir()] == ["books.py"]
    assert environment == {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
        "TMPDIR": str(home / "tmp"),
    }
    assert (home / "tmp").is_dir()
    assert SETTINGS["core"]["dags_folder"] == "/elsewhere/dags"


def test_a_worker_is_not_told_the_database(tmp_path, dags):
    home = tmp_path / "worker"
    set_up_machine(home, SETTINGS, dags, with_database=False)

    assert "secret" not in (home / "airflow.cfg").read_text()
    assert (home / "airflow.cfg").stat().st_mode & 0o077 == 0


def test_what_an_earlier_one_left_is_gone(tmp_path, dags):
    home = tmp_path / "worker"
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "old.log").touch()
    set_up_machine(home, SETTINGS, dags, with_database=False)

    assert sorted(path.name for path in home.iterdir()) == ["airflow.cfg", "dags", "tmp"]
