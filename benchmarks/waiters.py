"""
Waiting for many jobs: our trigger beside empty, minimal, dbt Cloud's and Airbyte's, in Airflow's trigger runner.

    python benchmarks/waiters.py [--jobs 100 1000 2000] [--interval 1] [--seconds 10] [--runs 1]

Each contestant has a process of its own, with as many deferred triggers as there are jobs, and a server of its own on
loopback, over TLS. Empty triggers sleep until their job has ended; what they cost is Airflow's own. Contestants whose
provider is not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from other_process import Remote, in_another_process
from waiters_server import Servers, write_bundle

HERE = Path(__file__).parent
DAY = 86_400.0


@dataclass(frozen=True)
class Contestant:
    """Somebody who waits, by a trigger. Its arguments are made of a job's id, its end and the interval."""

    name: str
    classpath: str
    arguments: Callable[[int, float, float], dict[str, Any]]
    package: str | None = None
    """The distribution that it needs, if it is not ours or Airflow's."""

    @property
    def is_installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.classpath.rpartition(".")[0]) is not None
        except ImportError:
            return False


EMPTY = Contestant("empty", "waiters_triggerer.EmptyTrigger", lambda _job_id, end, _interval: {"ends_at": end})
OURS = Contestant(
    "ours",
    "airflow_provider_agenty.triggers.agenty.AgentyJobTrigger",
    lambda job_id, end, interval: {
        "job_id": job_id,
        "agenty_conn_id": "agenty_default",
        "poll_interval": interval,
        "deadline": end + DAY,
    },
)
MINIMAL = Contestant(
    "minimal",
    "waiters_triggerer.MinimalTrigger",
    lambda job_id, _end, interval: {"job_id": job_id, "poll_interval": interval},
)
DBT_CLOUD = Contestant(
    "dbt Cloud",
    "airflow.providers.dbt.cloud.triggers.dbt.DbtCloudRunJobTrigger",
    lambda job_id, end, interval: {
        "conn_id": "dbt_cloud_default",
        "run_id": job_id,
        "end_time": end + DAY,
        "poll_interval": interval,
        "account_id": 1,
    },
    "apache-airflow-providers-dbt-cloud",
)
AIRBYTE = Contestant(
    "Airbyte",
    "airflow.providers.airbyte.triggers.airbyte.AirbyteSyncTrigger",
    lambda job_id, end, interval: {
        "conn_id": "airbyte_default",
        "job_id": job_id,
        "end_time": end + DAY,
        "poll_interval": interval,
    },
    "apache-airflow-providers-airbyte",
)
CONTESTANTS = (EMPTY, MINIMAL, OURS, DBT_CLOUD, AIRBYTE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="*", default=[100, 1000, 2000], metavar="N")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two polls")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a job takes, give or take a fifth")
    parser.add_argument("--runs", type=int, default=1, help="medians of so many runs")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds after which a run is given up")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in CONTESTANTS], help="only these contestants")
    parser.add_argument("--older", type=int, default=5000, help="older jobs of the account, for the second table")
    parser.add_argument("--scattered", type=int, default=50, help="jobs among them that are waited for")
    options = parser.parse_args()
    # So that nothing is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        track = Track(Path(folder), options)
        if options.jobs:
            compare_contestants(track, options)
        if options.older:
            compare_ways(track, options)


class Track:
    """Runs contestants: one server and one triggerer for each, with Airflow's home in the folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._options = options
        self._folder = folder
        self._bundle = write_bundle(folder)

    @contextlib.contextmanager
    def server_and_triggerer(self) -> Iterator[tuple[Remote, Triggerer]]:
        report = self._folder / "report.json"
        with (
            in_another_process(Servers, self._folder) as server,
            Triggerer(self._environment(server, report), report, self._options.patience) as triggerer,
        ):
            yield server, triggerer

    def _environment(self, server: Remote, report: Path) -> dict[str, str]:
        addresses = server.addresses()
        peers = f"127.0.0.1:{addresses['peers']}"
        agenty = addresses["agenty"] | {"extra": {"verify": str(self._bundle)}}
        connections = {
            "AGENTY_DEFAULT": agenty,
            "DBT_CLOUD_DEFAULT": {"conn_type": "dbt_cloud", "host": peers, "login": "1", "password": "a-token"},
            "AIRBYTE_DEFAULT": {"conn_type": "airbyte", "host": f"https://{peers}/v1"},
        }
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return inherited | {
            "AIRFLOW_HOME": str(self._folder),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self._folder / "logs"),
            "SSL_CERT_FILE": str(self._bundle),
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "WAITERS_REPORT": str(report),
            **{f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()},
        }

    def run(self, contestant: Contestant, count: int) -> dict[str, float]:
        """Let a contestant wait for so many jobs; return what that took."""
        spread = [self._options.seconds * (0.8 + 0.4 * n / max(count - 1, 1)) for n in range(count)]
        with self.server_and_triggerer() as (server, triggerer):
            jobs = server.start_jobs(spread)
            triggerer.begin(contestant, jobs, self._options.interval)
            report = triggerer.wait()
            counts = server.counts()
        delays = [report["events"][str(number + 1)] - end for number, (_, end) in enumerate(jobs)]
        return {
            "requests": counts["requests"] / count,
            "connections": counts["connections"],
            "cpu": report["cpu"],
            "rss": report["rss"],
            "delay": statistics.median(delays),
            "worst": max(delays),
            "stall": 1000 * report["stall"],
            "stall_cpu": 1000 * report["stall_cpu"],
        }


class Triggerer:
    """A triggerer in a process of its own, which writes a report and gives up after so many seconds."""

    def __init__(self, environment: dict[str, str], report: Path, patience: float) -> None:
        self._report = report
        self._patience = patience
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "waiters_triggerer.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Importing Airflow takes seconds, in which no job is to end.
        self._lines = [self._process.stdout.readline()]
        while self._lines[-1] not in ("ready\n", ""):
            self._lines.append(self._process.stdout.readline())

    def __enter__(self) -> Triggerer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, contestant: Contestant, jobs: list[tuple[int, float]], interval: float) -> None:
        triggers = [(contestant.classpath, contestant.arguments(job_id, end, interval)) for job_id, end in jobs]
        self._process.stdin.write(json.dumps({"triggers": triggers, "patience": self._patience}) + "\n")
        self._process.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """Wait until all triggers have ended; return what was measured."""
        output, _ = self._process.communicate()
        if self._process.returncode or not self._report.exists():
            raise SystemExit(f"The triggerer failed:\n{''.join(self._lines)}{output[-5000:]}")
        report = json.loads(self._report.read_text())
        self._report.unlink()
        if report["wrong"]:
            raise SystemExit("Waiting went wrong:\n" + "\n".join(report["wrong"]))
        return report


def compare_contestants(track: Track, options: argparse.Namespace) -> None:
    contestants = [each for each in CONTESTANTS if each.name in (options.only or each.name) and each.is_installed]
    for missing in (each for each in CONTESTANTS if not each.is_installed):
        print(f"{missing.name} is left out: pip install {missing.package}")
    print(f"Jobs of {options.seconds:g} s, give or take a fifth; interval {options.interval:g} s")
    print(f"Medians of {options.runs}; load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("Worst stall of the event loop: how long, and in brackets how much CPU the whole process used meanwhile")
    print()
    print(
        "| N | trigger | requests per job | TCP connections | CPU s | peak RSS MiB | delay median s | delay worst s "
        "| stall worst ms | beyond empty ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count in options.jobs:
        runs: dict[str, list[dict[str, float]]] = {each.name: [] for each in contestants}
        for _ in range(options.runs):
            for contestant in contestants:
                runs[contestant.name].append(track.run(contestant, count))
                print(f"{count} {contestant.name}: {runs[contestant.name][-1]}", file=sys.stderr)
        for name, measured in runs.items():
            print(f"| {count:,} | {name} {row_of(measured, runs.get(EMPTY.name))}", flush=True)
    print()
    print(f"Load after: {os.getloadavg()[0]:.1f}")


def row_of(runs: list[dict[str, float]], empty: list[dict[str, float]] | None) -> str:
    row = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    beyond = ""
    if empty is not None and empty is not runs:
        pairs = list(zip(runs, empty, strict=True))
        stall, cpu = (
            statistics.median(one[key] - other[key] for one, other in pairs) for key in ("stall", "stall_cpu")
        )
        beyond = f"{stall:.0f} ({cpu:.0f})"
    return (
        f"| {row['requests']:.3f} | {row['connections']:,.0f} | {row['cpu']:.2f} | {row['rss']:.0f} "
        f"| {row['delay']:.2f} | {row['worst']:.2f} | {row['stall']:.0f} ({row['stall_cpu']:.0f}) | {beyond} |"
    )


def compare_ways(track: Track, options: argparse.Namespace) -> None:
    """Count what a round costs when the jobs are scattered among many older ones."""
    rounds = 5
    with track.server_and_triggerer() as (server, triggerer):
        job_ids = server.scatter_jobs(options.older, options.scattered)
        end = time.time() + rounds * options.interval
        triggerer.begin(OURS, [(job_id, end) for job_id in job_ids], options.interval)
        time.sleep(rounds * options.interval + 2)
        asked = server.requests()
        server.complete_jobs(job_ids)
        triggerer.wait()
    # The last round may have been cut short by looking.
    begun = [number for number, request in enumerate(asked) if request == "/jobs?0"]
    print()
    print(f"{options.older:,} older jobs in the account, {options.scattered} that are waited for scattered among them")
    print()
    print("| way | requests per round |")
    print("|---|---|")
    print(f"| ours, over {len(begun) - 1} rounds | {begun[-1] / (len(begun) - 1):.1f} |")
    print(f"| all pages of 1,000 | {-(-options.older // 1000)} |")
    print(f"| each job by itself | {options.scattered} |")


if __name__ == "__main__":
    main()
