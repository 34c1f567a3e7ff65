"""``python -m demo``: a real Airflow runs a job of an Agenty agent and lands its CSV."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from demo.account import AGENT_VARIABLE, KEY_VARIABLE, URL_VARIABLE, Account, AccountError, open_account
from demo.progress import Progress
from tests.airflow_harness.airflow_api import AirflowApiError
from tests.airflow_harness.airflow_instance import AirflowInstance, AirflowInstanceError
from tests.airflow_harness.processes import ended_by_signals

ROOT = Path(__file__).resolve().parent.parent
DAG_ID = "agenty_to_csv"
FIRST_LINES = 5


class DemoError(Exception):
    """The demonstration did not land a file, and why."""


def main(arguments: list[str] | None = None) -> int:
    """
    Run the demonstration.

    :param arguments: of the command line; by default those of this process.
    :return: the exit code: 0 when a file landed, 130 after Ctrl-C, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m demo", description="Land a job's CSV with a real Airflow.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where Airflow and the file go")
    folder = parser.parse_args(arguments).folder.absolute()
    started = time.monotonic()

    def tell(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"{minutes:2d}:{seconds:02d}  {line}", flush=True)

    try:
        with ended_by_signals(), only_one(folder):
            landed = run_demo(folder, tell)
    except KeyboardInterrupt:
        print("Stopped: nothing of it is running any more.", file=sys.stderr)
        return 130
    except (AccountError, AirflowApiError, AirflowInstanceError, DemoError) as error:
        print(f"The demo failed. {error}", file=sys.stderr)
        return 1
    print_landed(Path(landed["path"]), landed["rows"])
    return 0


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """
    Hold the demonstration's folder.

    :param folder: the folder, which is made if need be.
    :raises DemoError: when another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"Another demo is running in {shown(folder)}: wait until it has ended.") from None
        yield


def run_demo(folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """
    Start everything, run the DAG, stop everything.

    :param folder: where everything goes.
    :param tell: called with each line of progress.
    :return: what the last task returned about the file.
    :raises AccountError: when the environment does not say clearly which account to use.
    :raises AirflowInstanceError: when Airflow does not work.
    :raises DemoError: when the run failed.
    """
    with open_account(os.environ) as account:
        tell(f"Agenty: {account.description}, agent {account.agent_id}")
        version = importlib.metadata.version("apache-airflow")
        tell(f"Airflow {version} starts, in {shown(folder / 'airflow')}")
        with make_airflow(folder, account, version) as airflow:
            tell(f"Airflow is up: {airflow.url}")
            return run_dag(airflow, account, folder / "landed", tell)


def make_airflow(folder: Path, account: Account, version: str) -> AirflowInstance:
    """
    Return the demonstration's Airflow, not started yet.

    :param folder: where its ``AIRFLOW_HOME`` and the prepared database go.
    :param account: its connection goes to Airflow's processes, and only there.
    :param version: Airflow's version, to which the prepared database belongs.
    """
    return AirflowInstance(
        folder / "airflow",
        dags_folder=ROOT / "example_dags",
        env={"AIRFLOW_CONN_AGENTY_DEFAULT": account.connection},
        without=(KEY_VARIABLE, AGENT_VARIABLE, URL_VARIABLE),
        database_template=folder / f"airflow-{version}.db",
    )


def run_dag(
    airflow: AirflowInstance, account: Account, landing_folder: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """
    Run the DAG and return what its last task returned.

    :param airflow: where to run it.
    :param account: whose agent to run.
    :param landing_folder: where the file goes.
    :param tell: called with each line of progress.
    :raises DemoError: when the run failed.
    """
    run = airflow.trigger(
        DAG_ID,
        {"agent_id": account.agent_id, "folder": str(landing_folder)},
        f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}",
    )
    tell(f"DAG {DAG_ID}, run {run.run_id}")
    progress = Progress(airflow, run, tell)
    try:
        state = progress.follow()
    except BaseException:
        job_id = airflow.xcom(run, "start")
        if account.costs_credits and job_id is not None:
            print(f"Job {job_id} may go on at Agenty: stop it there if you do not want it.", file=sys.stderr)
        raise
    if state != "success":
        raise DemoError("\n".join([f"The run of {DAG_ID} ended as {state}.", *progress.errors()]))
    return dict(airflow.xcom(run, "land"))


def print_landed(path: Path, rows: int) -> None:
    """Print where the file is, and how it begins."""
    print(f"Landed: {shown(path)} ({rows} rows)")
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in islice(file, FIRST_LINES):
            print(line.rstrip())


def shown(path: Path) -> Path:
    """Return a path as a person in the repository's folder would write it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
