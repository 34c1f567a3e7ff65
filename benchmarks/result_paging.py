"""
Reading a paged result: ours, with the next pages on their way, beside one page after another.

    python benchmarks/result_paging.py [--rows 100000] [--latency 0.15]

The sandbox runs in a process of its own and answers after the latency. Both readers go through the same session and see
the same pages; they take turns, and the medians of their times are compared.
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
from pathlib import Path

PAGE = 2500
AGENT = "benchmark"


def one_page_after_another(hook, job_id):
    offset, rows = 0, 0
    while True:
        answer = hook.get_conn().get(f"/jobs/{job_id}/result", params={"offset": offset, "limit": PAGE}).json()
        rows += len(answer["result"])
        offset += answer["returned"]
        if offset >= answer["total"]:
            return rows


def with_pages_ahead(hook, job_id):
    return sum(1 for _ in hook.iter_result(job_id))


def timed(read, hook, job_id, expected):
    began = time.perf_counter()
    rows = read(hook, job_id)
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
            "-m",
            "airflow_provider_agenty.sandbox",
            "--agents",
            folder,
            "--seconds",
            "0",
            "--page-cap",
            str(PAGE),
        ]
        server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        try:
            connection = next(line for line in server.stdout if "AIRFLOW_CONN_AGENTY_DEFAULT=" in line)
            connection = connection.partition("=")[2].strip().strip("'")
            os.environ |= {"AIRFLOW_HOME": folder, "AIRFLOW_CONN_AGENTY_DEFAULT": connection}
            compare(options, json.loads(connection)["host"])
        finally:
            server.terminate()
            server.wait()


def compare(options, url):
    from airflow_provider_agenty.hooks.agenty import AgentyHook
    from airflow_provider_agenty.sandbox import RemoteSandbox

    hook = AgentyHook()
    job_id = hook.start_job(AGENT).job_id
    hook.wait_for_job(job_id, poll_interval=0.1)
    RemoteSandbox(url, hook.settings.key).fault("GET", "/jobs/{id}/result", delay_before=options.latency, times=None)
    with_pages_ahead(hook, job_id)
    times = {one_page_after_another: [], with_pages_ahead: []}
    for _ in range(options.runs):
        for read, taken in times.items():
            taken.append(timed(read, hook, job_id, options.rows))

    print(
        f"{options.rows:,} rows in pages of {PAGE:,}, {options.latency * 1000:.0f} ms latency, median of {options.runs}"
    )
    print(f"{'':28}{'seconds':>10}{'rows/s':>12}{'ratio':>8}")
    slow = statistics.median(times[one_page_after_another])
    for read, taken in times.items():
        seconds = statistics.median(taken)
        print(
            f"{read.__name__.replace('_', ' '):28}{seconds:10.2f}{options.rows / seconds:12,.0f}{slow / seconds:8.1f}"
        )


if __name__ == "__main__":
    main()
