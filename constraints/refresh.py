"""
Make the constraint files in this folder again.

    python constraints/refresh.py            all of them
    python constraints/refresh.py 3.1.8      only that of one Airflow
    python constraints/refresh.py tools      only that of the tools that need no Airflow, at their newest

Each Airflow is resolved as its users got it shortly after its release. Without that date an older Airflow installs but
can't run a task: 3.0.6 and 3.2.2 fail with the FastAPI, Cadwyn and Pydantic of later months. A file holds everything
that is installed together with that Airflow for development, on each Python that it runs on, so one environment can be
made from one file.

A new Airflow gets a line in ``RESOLVED_BEFORE`` a week or so after its release, and one in ``PYTHONS``. Needs ``uv`` on
the path.
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

PYTHONS = {
    "2.11.2": ("3.11", "3.12"),
    "3.0.6": ("3.11", "3.12"),
    "3.1.8": ("3.11", "3.12", "3.13"),
    "3.2.2": ("3.11", "3.12", "3.13"),
    "3.3.2": ("3.11", "3.12", "3.13"),
}
"""On which of the Pythons that this package supports each Airflow runs."""

LIMITS = (
    # It comes with the Amazon provider, and brings clients of Snowflake, BigQuery and DuckDB from there on.
    "sagemaker-studio<1.1",
)

EXTRAS = ("dev", "sandbox", "celery", "browser")
TOOLS = "tools"
OLDEST_PYTHON = "3.11"
FOLDER = Path(__file__).parent


def requirements(airflow_version: str) -> list[str]:
    """
    Return what is installed for development with one Airflow, this package itself excepted.

    :param airflow_version: The Airflow.
    """
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    others = [each for each in wanted if not each.startswith(("apache-airflow>", project["name"]))]
    return [f"apache-airflow=={airflow_version}", *others, *LIMITS]


def resolve(airflow_version: str) -> str:
    """
    Return the lines of one constraint file.

    :param airflow_version: The Airflow.
    """
    pins: list[str] = []
    for python in PYTHONS[airflow_version]:
        # What one Python needs holds for the next one, which may need more.
        wanted = [*requirements(airflow_version), *pins]
        pins = resolve_on(python, wanted, before=RESOLVED_BEFORE[airflow_version])
    return "".join(f"{pin}\n" for pin in sorted(pins, key=str.upper))


def resolve_tools() -> str:
    """Return the lines of the file of the tools that need no Airflow."""
    wanted = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["dependency-groups"][TOOLS]
    return "".join(f"{pin}\n" for pin in resolve_on(OLDEST_PYTHON, wanted))


def resolve_on(python: str, wanted: list[str], *, before: str | None = None) -> list[str]:
    """
    Return what has to be installed on one Python, as ``name==version``.

    :param python: The Python.
    :param wanted: The requirements.
    :param before: The day by which it has to have been released. Default: today.
    """
    answer = subprocess.run(  # noqa: S603 - its arguments are those below
        [
            *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--python-version", python),
            *(("--exclude-newer", before) if before else ()),
            "-",
        ],
        input="\n".join(wanted),
        # Packages of this machine only must not get in.
        env={name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "UV_FIND_LINKS"}},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return answer.stdout.splitlines()


def main(names: list[str]) -> None:
    """
    Write constraint files.

    :param names: Of which Airflows, or ``tools``; none: all.
    """
    known = [*RESOLVED_BEFORE, TOOLS]
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"There is no date for {', '.join(unknown)}. There are: {', '.join(known)}.")
    for name in names or known:
        path = FOLDER / ("tools.txt" if name == TOOLS else f"airflow-{name}.txt")
        path.write_text(resolve_tools() if name == TOOLS else resolve(name))
        sys.stdout.write(f"{path.name}: {len(path.read_text().splitlines())} packages\n")


if __name__ == "__main__":
    main(sys.argv[1:])
