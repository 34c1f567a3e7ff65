"""
Make the constraint files in this folder again.

    python constraints/refresh.py            all of them
    python constraints/refresh.py 3.1.8      only that of one Airflow

Each Airflow is resolved as its users got it shortly after its release. Without that date an older Airflow installs but
can't run a task: 3.0.6 and 3.2.2 fail with the FastAPI, Cadwyn and Pydantic of later months. A file holds everything
that is installed together with that Airflow for development, so one environment can be made from one file.

A new Airflow gets a line in ``RESOLVED_BEFORE``, a week or so after its release. Needs ``uv`` on the path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

RESOLVED_BEFORE = {
    "2.11.2": "2026-03-21",
    "3.0.6": "2025-09-05",
    "3.1.8": "2026-03-18",
    "3.2.2": "2026-06-05",
    "3.3.2": "2026-09-25",
}

PYTHON = "3.11"
EXTRAS = ("dev", "sandbox")
FOLDER = Path(__file__).parent


def requirements(airflow_version: str) -> list[str]:
    """
    Return what is installed for development with one Airflow, this package itself excepted.

    :param airflow_version: The Airflow.
    """
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    others = [each for each in wanted if not each.startswith(("apache-airflow>", project["name"]))]
    return [f"apache-airflow=={airflow_version}", *others]


def resolve(airflow_version: str) -> str:
    """
    Return the lines of one constraint file.

    :param airflow_version: The Airflow.
    """
    answer = subprocess.run(  # noqa: S603 - its arguments are those below
        [
            *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--python-version", PYTHON),
            *("--exclude-newer", RESOLVED_BEFORE[airflow_version]),
            "-",
        ],
        input="\n".join(requirements(airflow_version)),
        # Packages of this machine only must not get in.
        env={name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "UV_FIND_LINKS"}},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return "".join(f"{line}\n" for line in sorted(answer.stdout.splitlines(), key=str.upper))


def main(airflow_versions: list[str]) -> None:
    """
    Write constraint files.

    :param airflow_versions: Of which Airflows; none: of all.
    """
    if unknown := sorted(set(airflow_versions) - RESOLVED_BEFORE.keys()):
        raise SystemExit(f"There is no date for {', '.join(unknown)}. There are: {', '.join(RESOLVED_BEFORE)}.")
    for airflow_version in airflow_versions or RESOLVED_BEFORE:
        path = FOLDER / f"airflow-{airflow_version}.txt"
        path.write_text(resolve(airflow_version))
        sys.stdout.write(f"{path.name}: {len(path.read_text().splitlines())} packages\n")


if __name__ == "__main__":
    main(sys.argv[1:])
