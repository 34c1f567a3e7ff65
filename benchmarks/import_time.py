"""
Importing our operators, beside those of dbt Cloud and Airbyte, after airflow.sdk.

    python benchmarks/import_time.py [--runs 7]

Each import happens in a fresh process that has imported airflow.sdk, with byte code compiled; the contestants take
turns. It is what each parse of a DAG file pays that uses the operators. Those whose provider is not installed are left
out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

PROGRAM = """
import importlib, json, sys, time
import airflow.sdk
before = set(sys.modules)
began, began_cpu = time.perf_counter(), time.process_time()
try:
    importlib.import_module(sys.argv[1])
except ModuleNotFoundError as error:
    if not sys.argv[1].startswith(error.name):
        raise
    print(json.dumps(None))
else:
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    new = set(sys.modules) - before
    heavy = sorted({"requests", "urllib3", "fsspec", "aiohttp", "httpx"} & new)
    print(json.dumps({"ms": 1000 * took, "cpu": 1000 * cpu, "modules": len(new), "heavy": heavy}))
"""


MODULES = {
    "ours": ("airflow_provider_agenty.operators.agenty", "airflow-provider-agenty"),
    "Airbyte": ("airflow.providers.airbyte.operators.airbyte", "apache-airflow-providers-airbyte"),
    "dbt Cloud": ("airflow.providers.dbt.cloud.operators.dbt", "apache-airflow-providers-dbt-cloud"),
}
"""What is imported, and the distribution that has it."""


def imported(name: str, home: str) -> dict[str, Any] | None:
    """Import in a fresh process; return what that took, ``None`` where it is not installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, MODULES[name][0]],
        env=environment | {"AIRFLOW_HOME": home},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        # The first import of each is not counted: it compiles the byte code.
        runs = {name: [] for name in MODULES if imported(name, home)}
        for _ in range(options.runs):
            for name, taken in runs.items():
                taken.append(imported(name, home))
    for missing in MODULES.keys() - runs.keys():
        print(f"{missing} is left out: pip install {MODULES[missing][1]}")
    print(f"Median of {options.runs}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print()
    print("| import of | ms | CPU ms | modules more | HTTP and file system libraries among them |")
    print("|---|---|---|---|---|")
    for name, taken in runs.items():
        ms, cpu, modules = (statistics.median(run[key] for run in taken) for key in ("ms", "cpu", "modules"))
        heavy = ", ".join(taken[0]["heavy"]) or "none"
        print(f"| {name} | {ms:.0f} | {cpu:.0f} | {modules:.0f} | {heavy} |")


if __name__ == "__main__":
    main()
