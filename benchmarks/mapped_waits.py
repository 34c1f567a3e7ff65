"""
Many mapped deferred tasks in a whole Airflow: how long after its job each trigger fires, and how many requests
that takes.

    python benchmarks/mapped_waits.py [--tasks 200] [--interval 5] [--parallelism 8]

Scheduler, triggerer, API server and DAG processor are Airflow's, over SQLite; Agenty is the sandbox on loopback. The
jobs end one after another, spread evenly over two intervals, once all tasks are deferred.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from airflow_waits import noted_in_log, seconds_of, track

DAG_FILE = """
from airflow.sdk import DAG, task

from airflow_provider_agenty.sensors.agenty import AgentyJobSensor


@task
def jobs(dag_run=None):
    return dag_run.conf["job_ids"]


with DAG("mapped_waits"):
    AgentyJobSensor.partial(task_id="wait", deferrable=True, poke_interval={interval}, end_from_trigger=True).expand(
        job_id=jobs()
    )
"""
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two polls")
    parser.add_argument("--parallelism", type=int, default=8, help="tasks in workers at once, on their way to defer")
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds after which it is given up")
    options = parser.parse_args()
    print(f"Load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    with track(folder, DAG_FILE.format(interval=options.interval), options.parallelism) as on:
        job_ids = on.start_jobs(options.tasks)
        began = time.monotonic()
        run = on.airflow.trigger("mapped_waits", {"job_ids": job_ids})
        on.wait_for_states(run, "wait", options.tasks, {"deferred"}, options.patience)
        print(f"All {options.tasks} are deferred after {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(2 * options.interval)
        on.sandbox.clear()
        time.sleep(ROUNDS * options.interval)
        requests = len(on.sandbox.requests) / ROUNDS

        completed = {}
        for number, job_id in enumerate(job_ids):
            on.complete(job_id)
            completed[job_id] = time.time()
            time.sleep(
                max(0.0, completed[job_ids[0]] + (number + 1) * 2 * options.interval / len(job_ids) - time.time())
            )
        tasks = on.wait_for_states(run, "wait", options.tasks, {"success"}, options.patience)
        fired, ended = [], []
        for task in tasks:
            event = noted_in_log(on.airflow.task_log_files(run, task), "Trigger fired event")
            fired.append(event - completed[job_ids[task.map_index]])
            ended.append(seconds_of(task.raw["end_date"]) - event)
    print()
    print("| | |")
    print("|---|---|")
    print(f"| mapped tasks, interval | {options.tasks}, {options.interval:g} s |")
    print(f"| requests per interval while all wait | {requests:.1f} |")
    print(f"| from the job's end to the trigger's event, s: median | {statistics.median(fired):.2f} |")
    print(f"| worst | {max(fired):.2f} ({max(fired) / options.interval:.1f} intervals) |")
    print(f"| from the event to the task's end (Airflow's part), s: median | {statistics.median(ended):.2f} |")
    print(f"| worst | {max(ended):.2f} |")
    print()
    print(f"Load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
