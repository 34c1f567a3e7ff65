"""
Landing a paged result: AgentyHook.download_result in each format, beside one page after another written to a file.

    python benchmarks/result_operator.py [--rows 100000] [--latency 0.15]

The sandbox runs in a process of its own and answers after the latency. All go through the same session and see the same
pages; they take turns, and the medians of their times are compared. Ours end with a verified file that was brought to
the disk (fsync), the first one with a file that was merely written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

PAGE = 2500
AGENT = "benchmark"


def one_page_after_another(hook, job_id, path):
    offset = rows = 0
    with Path(path).open("w", encoding="utf-8") as file:
        while True:
            answer = hook.get_conn().get(f"/jobs/{job_id}/result", params={"offset": offset, "limit": PAGE}).json()
            for row in answer["result"]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                rows += 1
            offset += answer["returned"]
            if offset >= answer["total"]:
                return rows


def landed(format, hook, job_id, path):  # noqa: A002 - what users call it
    return hook.download_result(job_id, path, format=format).rows


WAYS = {
    "one page after another": one_page_after_another,
    "download_result, jsonl": partial(landed, "jsonl"),
    "download_result, csv": partial(landed, "csv"),
    "download_result, parquet": partial(landed, "parquet"),
}


def timed(way, hook, job_id, path, expected):
    Path(path).unlink(missing_ok=True)
    began = time.perf_counter()
    rows = way(hook, job_id, path)
    took = time.perf_counter() - began
    assert rows == expected, (rows, expected)
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.15, help="seconds before each answer")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        rows = "".join(f"Book {n},£{n % 100}.99,http://books.example/{n}\r\n" for n in range(options.rows))
        Path(folder, f"{AGENT}.csv").write_text(f"name,price,url\r\n{rows}", newline="")
        command = [
            *("-m", "airflow_provider_agenty.sandbox"),
            *("--agents", folder),
            *("--seconds", "0"),
            *("--page-cap", str(PAGE)),
        ]
        server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        try:
            connection = next(line for line in server.stdout if "AIRFLOW_CONN_AGENTY_DEFAULT=" in line)
            connection = connection.partition("=")[2].strip().strip("'")
            os.environ |= {"AIRFLOW_HOME": folder, "AIRFLOW_CONN_AGENTY_DEFAULT": connection}
            compare(options, json.loads(connection)["host"], folder)
        finally:
            server.terminate()
            server.wait()


def compare(options, url, folder):
    import logging

    from airflow_provider_agenty.hooks.agenty import AgentyHook
    from airflow_provider_agenty.sandbox import RemoteSandbox

    AgentyHook.log = logging.getLogger("benchmark")
    hook = AgentyHook()
    job_id = hook.start_job(AGENT).job_id
    hook.wait_for_job(job_id, poll_interval=0.1)
    RemoteSandbox(url, hook.settings.key).fault("GET", "/jobs/**", delay_before=options.latency, times=None)
    path = str(Path(folder, "landed"))
    WAYS["download_result, parquet"](hook, job_id, path)
    times = {name: [] for name in WAYS}
    for _ in range(options.runs):
        for name, way in WAYS.items():
            times[name].append(timed(way, hook, job_id, path, options.rows))

    print(
        f"{options.rows:,} rows in pages of {PAGE:,}, {options.latency * 1000:.0f} ms latency, median of {options.runs}"
    )
    print(f"{'':28}{'seconds':>10}{'rows/s':>12}{'ratio':>8}")
    slow = statistics.median(times["one page after another"])
    for name, taken in times.items():
        seconds = statistics.median(taken)
        print(f"{name:28}{seconds:10.2f}{options.rows / seconds:12,.0f}{slow / seconds:8.1f}")


if __name__ == "__main__":
    main()
