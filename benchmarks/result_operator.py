"""
Landing a paged result: AgentyHook.download_result in each format, beside one page after another written to a file.

    python benchmarks/result_operator.py [--rows 100000] [--latency 0.15]

The sandbox runs in a child process and answers after the latency. All go through the same session and see the same
pages; they take turns, and the medians of their times are compared. Ours end with a verified file that was brought to
the disk (fsync), the first one with a file that was merely written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from result_paging import AGENT, PAGE, sandbox_with


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

    with tempfile.TemporaryDirectory() as folder, sandbox_with(options.rows, options.latency, "/jobs/**"):
        os.environ["AIRFLOW_HOME"] = folder
        compare(options, folder)


def compare(options, folder):
    import logging

    from airflow_provider_agenty.hooks.agenty import AgentyHook

    AgentyHook.log = logging.getLogger("benchmark")
    hook = AgentyHook()
    job_id = hook.start_job(AGENT).job_id
    hook.wait_for_job(job_id, poll_interval=0.1)
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
