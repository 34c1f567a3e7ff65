"""What the tests of commands share: to run one here, and in a process with an Airflow of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_agenty.commands import main
from tests.over_the_wire import (  # noqa: F401 - fixtures
    certificate,
    closed_port,
    connect,
    finished_job,
    hook_log,
    plain_environment,
    sandbox,
    slept,
)


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # and take it back afterwards

    def run(*arguments: Any) -> Ran:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run Python in an Airflow of its own, with a database: ``airflow("-m", "airflow_provider_agenty", "jobs")``."""
    home = tmp_path_factory.mktemp("airflow")
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
    }

    def run(*arguments: str, **environment: str) -> Ran:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**kept, **settings, **environment},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    migrated = run("-m", "airflow", "db", "migrate")
    assert migrated.status == 0, migrated.err
    return run
