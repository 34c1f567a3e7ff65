"""
Reading and landing a paged result, beside one page after another.

    python benchmarks/result_paging.py [--rows 100000] [--latency 0.15]

The sandbox runs in a process of its own and answers after the latency. All go through the same session and see the same
pages; they take turns, and the medians of their times are compared. Ours that land end with a verified file that was
brought to the disk (fsync); one page after another is merely written.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from other_process import in_another_process

PAGE = 2500
AGENT = "benchmark"


class LateSandbox:
    """A sandbox with one agent, whose result comes late."""

    def __init__(self, rows, latency):
        from airflow_provider_agenty.sandbox import Sandbox

        books = "".join(f"Book {n},£{n % 100}.99,http://books.example/{n}\r\n" for n in range(rows))
        content = f"name,price,url\r\n{books}".encode()
        self._sandbox = Sandbox({AGENT: content}, seconds=0, page_cap=PAGE).start()
        self._sandbox.fault("GET", "/jobs/{id}/result", delay_before=latency, times=None)

    def connection(self):
        return self._sandbox.connection_json


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


def read(hook, job_id, _path):
    return sum(1 for _ in hook.iter_result(job_id))


def landed(format, hook, job_id, path):  # noqa: A002 - what users call it
    return hook.download_result(job_id, path, format=format).rows


WAYS = {
    "one page after another, as JSON Lines": one_page_after_another,
    "iter_result": read,
    **{f"download_result, {each}": partial(landed, each) for each in ("jsonl", "csv", "parquet")},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.15, help="seconds before each answer")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        in_another_process(LateSandbox, options.rows, options.latency) as late,
    ):
        os.environ |= {"AIRFLOW_HOME": folder, "AIRFLOW_CONN_AGENTY_DEFAULT": late.connection()}
        compare(options, str(Path(folder, "landed")))


def compare(options, path):
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    AgentyHook.log = logging.getLogger("benchmark")
    AgentyHook.log.setLevel(logging.WARNING)
    hook = AgentyHook()
    job_id = hook.start_job(AGENT).job_id
    hook.wait_for_job(job_id, poll_interval=0.1)
    # The first one imports pyarrow.
    WAYS["download_result, parquet"](hook, job_id, path)
    times = {name: [] for name in WAYS}
    for _ in range(options.runs):
        for name, way in WAYS.items():
            Path(path).unlink(missing_ok=True)
            began = time.perf_counter()
            rows = way(hook, job_id, path)
            times[name].append(time.perf_counter() - began)
            assert rows == options.rows, (name, rows)

    print(f"Medians of {options.runs}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print()
    print("| | seconds | rows/s | ratio |")
    print("|---|---|---|---|")
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    slow = medians["one page after another, as JSON Lines"]
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {options.rows / seconds:,.0f} | {slow / seconds:.1f} |")


if __name__ == "__main__":
    main()
