"""
Reading a paged result: ours, with the next pages on their way, beside one page after another.

    python benchmarks/result_paging.py [--rows 100000] [--latency 0.15]

The sandbox runs in a child process and answers after the latency. Both readers go through the same session and see
the same pages; they take turns, and the medians of their times are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time

PAGE = 2500
AGENT = "benchmark"


def serve(told, rows, latency, path):
    from airflow_provider_agenty.sandbox import Sandbox

    books = "".join(f"Book {n},£{n % 100}.99,http://books.example/{n}\r\n" for n in range(rows))
    with Sandbox({AGENT: f"name,price,url\r\n{books}"}, seconds=0, page_cap=PAGE) as sandbox:
        sandbox.fault("GET", path, delay_before=latency, times=None)
        told.send(sandbox.connection_json)
        told.recv()


@contextlib.contextmanager
def sandbox_with(rows, latency, path):
    """Let the connection agenty_default lead to a sandbox whose answers below a path are late."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=serve, args=(there, rows, latency, path))
    server.start()
    try:
        os.environ["AIRFLOW_CONN_AGENTY_DEFAULT"] = here.recv()
        yield
    finally:
        here.send("stop")
        server.join()


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

    with tempfile.TemporaryDirectory() as folder, sandbox_with(options.rows, options.latency, "/jobs/{id}/result"):
        os.environ["AIRFLOW_HOME"] = folder
        compare(options)


def compare(options):
    from airflow_provider_agenty.hooks.agenty import AgentyHook

    hook = AgentyHook()
    job_id = hook.start_job(AGENT).job_id
    hook.wait_for_job(job_id, poll_interval=0.1)
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
