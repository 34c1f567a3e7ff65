"""
Landing a large file from loopback, beside curl and plain requests in the same run.

    python benchmarks/landing.py [--megabytes 1000] [--runs 3] [--folder FOLDER]

A server in a process of its own sends a CSV file with sendfile. One subject after another lands it in the same
folder, in a fresh process each, in turns. Every time includes bringing the file to the disk (fsync); the start of
Python and its imports are left out, that of curl is not. Memory is how far the resident set grows while landing.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

PAUSE = 2.0  # seconds before each turn
PIECE = 1024 * 1024
CONTENTS = {  # quoting, columns, line end
    "no quotes": (csv.QUOTE_MINIMAL, 8, "\n"),
    "every field quoted": (csv.QUOTE_ALL, 8, "\n"),
    "no quotes, one column, CRLF": (csv.QUOTE_MINIMAL, 1, "\r\n"),
}


def column_names(columns: int) -> list[str]:
    return [f"column {number}" for number in range(columns)]


def write_csv(path: Path, size: int, quoting: int, columns: int, line_end: str) -> int:
    """Write a CSV file and return its number of rows."""
    chance = random.Random(1)
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting, lineterminator=line_end)
    writer.writerow(column_names(columns))
    rows = 1
    while out.tell() < 1024 * 1024:
        writer.writerow(["".join(chance.choices("abcdefgh 0123", k=chance.randint(10, 50))) for _ in range(columns)])
        rows += 1
    part = out.getvalue().encode()
    with path.open("wb") as file:
        for _ in range(size // len(part)):
            file.write(part)
    return rows * (size // len(part)) - 1


def serve(path: Path, told: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    told.send(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=send, args=(connection, path), daemon=True).start()


def send(connection: socket.socket, path: Path) -> None:
    with connection, path.open("rb") as file:
        connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            % path.stat().st_size
        )
        connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def with_curl(url: str, target: Path, _rows: int) -> None:
    subprocess.run(["curl", "--silent", "--fail", "--output", str(target), url], check=True)
    fsync(target)


def with_requests(url: str, target: Path, _rows: int) -> None:
    import requests

    with requests.get(url, stream=True, timeout=60) as answer, target.open("wb") as file:
        for chunk in answer.iter_content(1024 * 1024):
            file.write(chunk)
    fsync(target)


def with_landing(url: str, target: Path, rows: int | None, required: tuple[str, ...] = ()) -> None:
    import requests

    from airflow_provider_agenty.landing.destinations import open_destination
    from airflow_provider_agenty.landing.download import HttpDownload
    from airflow_provider_agenty.landing.land import LandingOptions, land
    from airflow_provider_agenty.landing.quality import Quality

    log = logging.getLogger("benchmark")
    options = LandingOptions(
        1, str(target), "log" if rows is None else "csv", required_fields=dict.fromkeys(required, 0.9)
    )
    # It asks Agenty only of the job before, which is not compared here.
    quality = Quality(None, None, options, log, counts_file=True) if required else None  # type: ignore[arg-type]
    with requests.Session() as session:
        exported = land(
            HttpDownload(lambda: url, session, expected="The file", schemes_to_this_machine=("http", "https"), log=log),
            open_destination(str(target), default_name=lambda: "unused.csv"),
            options,
            expected_rows=rows,
            quality=quality,
            log=log,
        )
    if exported.rows != rows:
        raise SystemExit(f"{exported.rows} rows instead of {rows}")


def with_landing_uncounted(url: str, target: Path, _rows: int) -> None:
    with_landing(url, target, None)


def with_landing_and_a_required_field(url: str, target: Path, rows: int) -> None:
    with_landing(url, target, rows, required=("column 0",))


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def rest(folder: Path, size: int) -> None:
    """Let the machine settle, so that nobody profits or suffers from what was just done, and have memory at hand."""
    os.sync()
    time.sleep(PAUSE)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(-(-size // PIECE)):
            file.write(b"." * PIECE)


SUBJECTS: dict[str, Callable[[str, Path, int], None]] = {
    "curl, then fsync": with_curl,
    "requests.iter_content(1 MiB), then fsync": with_requests,
    "ours, all verification": with_landing,
    "ours, rows not counted": with_landing_uncounted,
    "ours, all verification and required_fields": with_landing_and_a_required_field,
}


def run_subject(name: str, url: str, target: Path, rows: int, size: int) -> None:
    """Measure one subject in this process and print what was measured."""
    import requests  # noqa: F401 - imports do not count

    import airflow_provider_agenty.landing.land  # noqa: F401

    rest(target.parent, size)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins here
    before = memory("VmHWM")
    begun, used = time.perf_counter(), time.process_time()
    SUBJECTS[name](url, target, rows)
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps({"seconds": seconds, "processor": processor, "memory": (memory("VmHWM") - before) / 1024}))


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(name: str, url: str, target: Path, rows: int, size: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--subject", name, url, str(target), str(rows), str(size)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    target.unlink()
    return json.loads(answer.stdout)


def compare(content: str, size: int, runs: int, folder: Path) -> None:
    source = folder / "source.csv"
    rows = write_csv(source, size, *CONTENTS[content])
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(source, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/file.csv"
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in SUBJECTS}
    try:
        for _ in range(runs):
            for name in SUBJECTS:
                measured[name].append(measure(name, url, folder / "target.csv", rows, size))
    finally:
        server.kill()
        source.unlink()
    first = statistics.median(run["seconds"] for run in measured["curl, then fsync"])
    for name, results in measured.items():
        seconds = statistics.median(run["seconds"] for run in results)
        processor = "" if name.startswith("curl") else f"{statistics.median(r['processor'] for r in results):.2f}"
        growth = "" if name.startswith("curl") else f"{max(run['memory'] for run in results):.1f}"
        print(f"| {content} | {name} | {seconds:.2f} | {seconds / first:.2f} | {processor} | {growth} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to land; default: the folder for temporary files")
    parser.add_argument("--content", choices=CONTENTS, action="append")
    parser.add_argument("--subject", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subject:
        name, url, target, rows, size = options.subject
        run_subject(name, url, Path(target), int(rows), int(size))
        return
    print("| content | subject | s, median | / curl | processor s | memory growth MiB, most |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for content in options.content or CONTENTS:
            compare(content, options.megabytes * 10**6, options.runs, Path(folder))


if __name__ == "__main__":
    main()
