"""
Every Python block of the documentation is run, against a sandbox.

- A block with a DAG becomes a file in a DAGs folder: it is imported as Airflow does, and its DAG is run.
- A block with tests is run by pytest, beside the files of its page whose first line says what they are called.
- Any other block is executed in a namespace of its own.

None is left out. A block below ``<!-- continues -->`` is run together with the one before it. Some things are not as
they stand: ``/data/``, ``~`` and ``s3://lake`` lead to temporary places, and on Airflow 2 names are imported from where
it has them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_commands import airflow_environment, run_python
from tests.docs.pages import Program, programs
from tests.features import IS_AIRFLOW_3_0
from tests.s3_server import s3_server

AIRFLOW_2_NAMES = {
    "DAG": "airflow import DAG",
    "task": "airflow.decorators import task",
    "task_group": "airflow.decorators import task_group",
    "Asset": "airflow.datasets import Dataset as Asset",
}
PROGRAMS = programs("python")

pytestmark = pytest.mark.timeout(600)


def kind_of(program: Program) -> str:
    tree = ast.parse(program.code, program.name)
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if any(name.startswith("test_") for name in functions):
        return "tests"
    if "pytest_plugins" in names:
        return "conftest"
    return "dag" if {"DAG", "dag"} & names else "script"


def of_kind(kind: str) -> Any:
    chosen = [program for program in PROGRAMS if kind_of(program) == kind]
    return pytest.mark.parametrize("program", chosen, ids=lambda program: program.name)


def runnable(program: Program, data: Path) -> str:
    """Return the code of a program, for this Airflow and with another folder for ``/data/``."""
    code = program.code.replace('"/data/', f'"{data}/')
    if not _is_airflow_2():
        return code
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "airflow.sdk":
            names = [alias.name for alias in node.names]
            missing = [name for name in names if name not in AIRFLOW_2_NAMES]
            if missing:
                assert "needs Airflow 3.0 or later" in " ".join(program.page.read_text(encoding="utf-8").split())
                pytest.skip(f"Airflow 2 has no {', '.join(missing)}, as the page says")
            old = ast.get_source_segment(code, node)
            assert old is not None
            new = "; ".join(f"from {AIRFLOW_2_NAMES[name]}" for name in names)
            code = code.replace(old, new + "\n" * old.count("\n"))
    return code


def _is_airflow_2() -> bool:
    import airflow

    return airflow.__version__.startswith("2.")


def test_there_are_blocks_of_each_kind():
    assert {kind_of(program) for program in PROGRAMS} == {"script", "dag", "tests", "conftest"}


@of_kind("script")
def test_a_script(program, agenty_sandbox, tmp_path):
    exec(compile(runnable(program, tmp_path), program.name, "exec"), {"__name__": "__main__"})


@of_kind("tests")
def test_tests(program, tmp_path):
    for beside in PROGRAMS:
        # Its first line says what a file is called that the tests need, or are.
        if beside.page == program.page and (named := re.match(r"\s*# ([\w/]+\.py)\n", beside.code)):
            file = tmp_path / named[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(runnable(beside, tmp_path), encoding="utf-8")
    assert list(tmp_path.glob("test_*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@of_kind("conftest")
def test_a_conftest_stands_beside_tests(program):
    compile(program.code, program.name, "exec")
    assert any(beside.page == program.page and kind_of(beside) == "tests" for beside in PROGRAMS)


# DAGs


@dataclass
class DagRuns:
    """How the DAGs of the pages ended: what could not be imported, and the runs, by file, also with a failed job."""

    errors: dict[str, str]
    ended: dict[str, dict[str, Any]]
    failed: dict[str, dict[str, Any]]
    output: str


@pytest.fixture(scope="module")
def lake():
    """Give the environment in which ``s3://lake/`` is a bucket of moto's server."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    with s3_server() as endpoint:
        # What a worker has of its own: the pages name no storage_conn_id.
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "access-key",
            "AWS_SECRET_ACCESS_KEY": "secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=environment["AWS_DEFAULT_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket="lake")
        yield environment
        # The next server would find this one's keys.
        urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"").close()


@pytest.fixture(scope="module")
def dag_runs(lake, tmp_path_factory):
    """Run all DAGs of the pages, one after the other, in a process and an Airflow of their own."""
    home = tmp_path_factory.mktemp("airflow")
    folder = home / "dags"
    folder.mkdir()
    for number, program in enumerate(PROGRAMS):
        if kind_of(program) == "dag":
            try:
                code = runnable(program, home)
            except pytest.skip.Exception:
                continue
            (folder / f"page_{number}.py").write_text(code, encoding="utf-8")
    environment = airflow_environment(home, folder, HOME=str(home), **lake)
    if IS_AIRFLOW_3_0:
        # There an asset has to be known before a task has it for an outlet.
        run_python(environment, "-m", "airflow", "dags", "reserialize")
    output = run_python(environment, str(Path(__file__).with_name("run_dags.py")))
    return DagRuns(**json.loads(output.splitlines()[-1]), output=output)


@of_kind("dag")
def test_a_dag(program, dag_runs, tmp_path):
    runnable(program, tmp_path)  # skips what this Airflow does not have
    file = f"page_{PROGRAMS.index(program)}.py"
    assert file not in dag_runs.errors, dag_runs.errors[file]
    ended = dag_runs.ended.get(file)
    assert ended, f"{program.name} has no DAG"
    for dag_id, run in ended.items():
        assert run["state"] == "success", f"{dag_id}: {run['tasks']}\n{dag_runs.output[-20_000:]}"
        assert run["tasks"], f"{dag_id} has no task"


def test_what_a_page_does_whatever_happens_is_done_after_a_failed_job(dag_runs):
    runs = [(dag_id, run) for dags in dag_runs.failed.values() for dag_id, run in dags.items()]
    assert runs
    for dag_id, run in runs:
        assert run["state"] == "failed", f"{dag_id}: {run['tasks']}"
        done = {task_id: run["tasks"][task_id] for task_id in run["for_whatever_happens"]}
        assert set(done.values()) == {"success"}, f"{dag_id}: {run['tasks']}\n{dag_runs.output[-20_000:]}"
