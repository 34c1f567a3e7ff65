"""``make demo``: a real Airflow runs a job of an Agenty agent, of a sandbox or a real account, and lands its CSV."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tests.airflow_harness.airflow_api import AirflowApiError, Run, TaskInstance, log_line
from tests.airflow_harness.airflow_instance import RUN_ENDED, TASK_ENDED, AirflowInstance, AirflowInstanceError
from tests.airflow_harness.processes import ended_by_signals

ROOT = Path(__file__).resolve().parent
DAG_ID = "agenty_to_csv"
SAMPLE_AGENT = "45l0wewqzk"
ACCOUNT = ("AGENTY_API_KEY", "AGENTY_AGENT_ID", "AGENTY_API_URL")
"""Environment variables: key and agent for a real account, and an address if it is not Agenty's."""

BEGAN = time.monotonic()


class DemoError(Exception):
    """No file was landed, and why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo, and return the exit code: 0 when a file landed, 130 after Ctrl-C, else 1."""
    parser = argparse.ArgumentParser(description="Land a job's CSV with a real Airflow.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where Airflow and the file go")
    folder = parser.parse_args(arguments).folder.absolute()
    try:
        with ended_by_signals(), only_one(folder):
            landed = run_demo(folder)
    except KeyboardInterrupt:
        print("Stopped: nothing of it is running any more.", file=sys.stderr)
        return 130
    except (AirflowApiError, AirflowInstanceError, DemoError) as error:
        print(f"The demo failed. {error}", file=sys.stderr)
        return 1
    print(f"Landed: {shown(Path(landed['path']))} ({landed['rows']} rows)")
    with Path(landed["path"]).open(encoding="utf-8", errors="replace") as file:
        print("".join(islice(file, 5)), end="")
    return 0


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the demo's folder, so that no other demo uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"Another demo is running in {shown(folder)}: wait until it has ended.") from None
        yield


def run_demo(folder: Path) -> dict[str, Any]:
    """Start everything, run the DAG, stop everything, and return what the last task returned about the file."""
    with open_account() as (description, agent_id, connection):
        tell(f"Agenty: {description}, agent {agent_id}")
        version = importlib.metadata.version("apache-airflow")
        tell(f"Airflow {version} starts, in {shown(folder / 'airflow')}")
        with AirflowInstance(
            folder / "airflow",
            dags_folder=ROOT / "example_dags",
            env={"AIRFLOW_CONN_AGENTY_DEFAULT": connection},
            without=ACCOUNT,
            database_template=folder / f"airflow-{version}.db",
        ) as airflow:
            tell(f"Airflow is up: {airflow.url}")
            conf = {"agent_id": agent_id, "folder": str(folder / "landed")}
            run = airflow.trigger(DAG_ID, conf, f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            tell(f"DAG {DAG_ID}, run {run.run_id}")
            try:
                state = follow(airflow, run)
            except BaseException:
                job_id = airflow.xcom(run, "start")
                if os.environ.get(ACCOUNT[0]) and job_id is not None:
                    print(f"Job {job_id} may go on at Agenty: stop it there if you do not want it.", file=sys.stderr)
                raise
            if state != "success":
                raise DemoError("\n".join([f"The run of {DAG_ID} ended as {state}.", *errors_of(airflow, run)]))
            return dict(airflow.xcom(run, "land"))


@contextlib.contextmanager
def open_account() -> Iterator[tuple[str, str, str]]:
    """Give a description, an agent and a connection as JSON: of the environment's account, or else of a sandbox."""
    key, agent_id, url = (os.environ.get(name, "").strip() for name in ACCOUNT)
    if bool(key) != bool(agent_id):
        given, missing = ACCOUNT[:2] if key else (ACCOUNT[1], ACCOUNT[0])
        raise DemoError(
            f"{given} is set but {missing} is not: set both to run one of your own agents, or neither to use the "
            "sandbox."
        )
    if key:
        connection = {"conn_type": "agenty", "password": key, **({"host": url} if url else {})}
        yield f"your Agenty account{f' at {url}' if url else ''}", agent_id, json.dumps(connection)
        return
    from airflow_provider_agenty.sandbox import Sandbox

    # Long enough for some lines of progress, short enough to watch.
    with Sandbox(seconds=12.0) as sandbox:
        yield f"an Agenty sandbox at {sandbox.url}", SAMPLE_AGENT, sandbox.connection_json


def follow(airflow: AirflowInstance, run: Run) -> str:
    """Tell of each task's states and of what this provider logs in it until the run has ended; return its state."""
    states: dict[str, str | None] = {}
    entries_told: Counter[Path] = Counter()

    def tell_log(task: TaskInstance) -> None:
        for file in airflow.task_log_files(run, task):
            entries = entries_of(file)
            for entry in entries[entries_told[file] :]:
                if "airflow_provider_agenty" in str(entry.get("logger")) and entry.get("level") != "debug":
                    tell(f"{task.label:<6} {entry['event']}")
            entries_told[file] = len(entries)

    while True:
        run_state = airflow.run_state(run)
        for task in sorted(airflow.task_instances(run), key=lambda task: task.raw["start_date"] or "~"):
            has_ended = task.state in TASK_ENDED
            if has_ended:
                tell_log(task)
            if task.state not in (states.get(task.label), None, "scheduled", "queued"):
                tell(f"{task.label:<6} {task.state}")
            states[task.label] = task.state
            if not has_ended:
                tell_log(task)
        if run_state in RUN_ENDED:
            return run_state
        airflow.check()
        time.sleep(0.5)


def errors_of(airflow: AirflowInstance, run: Run) -> Iterator[str]:
    """Yield what the failed tasks left in their logs as reasons, and where the whole logs are."""
    for task in airflow.task_instances(run):
        if task.state == "failed":
            files = airflow.task_log_files(run, task)
            yield f"The task {task.label} failed after {task.try_number} of {task.max_tries + 1} tries:"
            entries = [entry for file in files for entry in entries_of(file)]
            yield from (f"  {log_line(entry)}" for entry in entries if entry.get("level") in ("error", "critical"))
            yield from (f"  The whole log: {file}" for file in files)


def entries_of(log: Path) -> list[dict[str, Any]]:
    """Read a task's log. A line that is still being written is left for the next time."""
    entries = []
    for line in log.read_text(errors="replace").split("\n")[:-1]:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "event" in entry:
                entries.append(entry)
    return entries


def tell(line: str) -> None:
    """Print a line with the time since the start."""
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"{minutes:2d}:{seconds:02d}  {line}", flush=True)


def shown(path: Path) -> Path:
    """Return a path as a person in the repository's folder would write it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
