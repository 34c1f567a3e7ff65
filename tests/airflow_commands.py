"""Commands in an Airflow of their own: a folder and a migrated database, and nothing that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def airflow_environment(home: Path, dags: Path, **more: str) -> dict[str, str]:
    """Return the environment of an Airflow whose DAGs are in a folder, with its database migrated."""
    others = ("AIRFLOW", "_AIRFLOW", "AWS_")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(others)},
        **more,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    run_python(environment, "-m", "airflow", "db", "migrate")
    return environment


def run_python(environment: dict[str, str], *arguments: str) -> str:
    """Run a program, away from this folder so that the installed package is tried, and return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=environment["AIRFLOW_HOME"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-20_000:]
    return done.stdout
