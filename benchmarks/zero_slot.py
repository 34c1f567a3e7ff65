"""
What a wait costs that no worker takes part in, beside an ordinary deferred one, in a whole Airflow.

    python benchmarks/zero_slot.py [--waits 20] [--interval 1] [--parallelism 4]

Both kinds wait for as many jobs, one kind after the other, in the same Airflow. What is counted: processes of workers
(from Airflow's audit log), CPU seconds of all of Airflow's processes, and how long it takes from the run's start until
all wait, and from the jobs' end until all tasks have succeeded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from airflow_waits import seconds_of, track

DAG_FILE = """
from airflow.sdk import DAG

from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

KINDS = {{"ordinary": {{}}, "zero_slot": {{"start_from_trigger": True, "end_from_trigger": True}}}}

for kind, parameters in KINDS.items():
    with DAG(kind) as dag:
        for number in range({waits}):
            AgentyJobSensor(
                task_id=f"wait_{{number}}",
                job_id=f"{{{{{{{{ dag_run.conf['job_ids'][{{number}}] }}}}}}}}",
                deferrable=True,
                poke_interval={interval},
                **parameters,
            )
    globals()[kind] = dag
"""
SETTLE_SECONDS = 15
"""
How long all wait before the first job ends.

Seen on 3.3.2, on a busy machine: where the scheduler queues a task again before it has taken in that the task's first
process has ended, it takes the one for the other and fails the task.
"""

KINDS = {"deferrable=True": "ordinary", "and start_from_trigger=True, end_from_trigger=True": "zero_slot"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waits", type=int, default=20)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two polls")
    parser.add_argument("--parallelism", type=int, default=4, help="tasks in workers at once")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds after which it is given up")
    options = parser.parse_args()
    print(f"{options.waits} waits; load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print()
    print("| sensor | worker starts per wait | CPU s per wait | until all wait, s | from the jobs' end to success, s |")
    print("|---|---|---|---|---|", flush=True)
    dag = DAG_FILE.format(waits=options.waits, interval=options.interval)
    with tempfile.TemporaryDirectory() as folder, track(Path(folder), dag, options.parallelism) as on:
        # The first run of a DAG takes longer.
        for name in (None, *KINDS):
            row = measure(on, KINDS[name or next(iter(KINDS))], options)
            if name is not None:
                print(f"| `{name}` | {row}", flush=True)
    print()
    print(f"Load after: {os.getloadavg()[0]:.1f}")


def measure(on, dag_id: str, options: argparse.Namespace) -> str:
    on.airflow.wait_for_dag(dag_id)
    job_ids = on.start_jobs(options.waits)
    cpu, began = on.cpu_seconds(), time.time()
    run = on.airflow.trigger(dag_id, {"job_ids": job_ids})
    on.wait_for_states(run, "wait", options.waits, {"deferred"}, options.patience)
    waiting = time.time()
    time.sleep(SETTLE_SECONDS)
    completed = time.time()
    for job_id in job_ids:
        on.complete(job_id)
    tasks = on.wait_for_states(run, "wait", options.waits, {"success"}, options.patience)
    ended = max(seconds_of(task.raw["end_date"]) for task in tasks)
    cpu = on.cpu_seconds() - cpu
    return (
        f"{on.worker_starts(run) / options.waits:.1f} | {cpu / options.waits:.2f} | {waiting - began:.1f} "
        f"| {ended - completed:.1f} |"
    )


if __name__ == "__main__":
    main()
