"""
Landing a large file in S3 (moto's server), beside a download by curl and an upload by the AWS command line.

    python benchmarks/landing_s3.py --aws AWS [--megabytes 1000] [--runs 5] [--folder FOLDER] [--plain]

AWS is the AWS command line. It needs a botocore of its own, so install it in an environment of its own: ``python -m
venv aws && aws/bin/pip install awscli``, then ``--aws aws/bin/aws``.

All take turns with the same file over loopback and the same server. The server speaks TLS, as S3 does, unless
``--plain`` is given.

- The order changes from turn to turn. A first turn of each does not count.
- Each turn begins two seconds after the last one's files were removed or brought to the disk, and right after a file
  of the same size was written and removed.
- The server takes its memory, eight times the file's size, before the first turn and keeps it. A virtual machine may
  give free memory back to its host; getting it again takes longer than the whole upload.
- The start of Python and its imports is left out. For the AWS command line the time of ``aws --version`` is taken off.

Ours downloads, verifies and uploads. Its ratios are to curl and AWS together, with and without bringing the downloaded
file to the disk (fsync).
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from landing import CONTENTS, fsync, rest, serve, write_csv
from waiters_server import write_bundle

LOGIN = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
NO_OTHERS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
KEEPS_ITS_MEMORY = {  # what glibc and moto read when the process of the server starts
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(2**40),
}
MEMORY = 8  # of the server, in sizes of the file
WARMING_UP = 1  # turns that do not count
READY = "ready"


def store(told: Connection, certificate: Path | None, memory: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    _take_and_keep(memory)
    logging.getLogger("werkzeug").disabled = True
    files = (str(certificate / "certificate.pem"), str(certificate / "key.pem")) if certificate else None
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=files)
    told.send(f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}")
    server.serve_forever()


def _take_and_keep(memory: int) -> None:
    taken = b"." * memory
    del taken


def seconds(work: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def land_in_s3(url: str, rows: int, folder: str) -> None:
    """Get ready in this process, land the file when told to, and print the seconds that it takes."""
    import requests

    from airflow_provider_agenty.landing.destinations import open_destination
    from airflow_provider_agenty.landing.download import HttpDownload
    from airflow_provider_agenty.landing.land import LandingOptions, land

    log = logging.getLogger("benchmark")
    open_destination("s3://lake/imports/", default_name=lambda: "nothing")  # imports do not count
    print(READY, flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    with requests.Session() as session:
        land(
            HttpDownload(lambda: url, session, expected="The file", schemes_to_this_machine=("http", "https"), log=log),
            open_destination("s3://lake/ours.csv", default_name=lambda: "unused"),
            LandingOptions(1, "s3://lake/ours.csv", "csv", spool_folder=folder),
            expected_rows=rows,
            log=log,
        )
    print(time.perf_counter() - begun)


def our_turn(url: str, rows: int, folder: Path, size: int) -> float:
    command = [sys.executable, __file__, "--land", url, str(rows), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while process.stdout.readline().rstrip() != READY:  # Airflow logs to the same place
            assert process.poll() is None, "ours failed"
        rest(folder, size)
        answer, _ = process.communicate("now\n")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return float(answer.splitlines()[-1])


def their_turn(aws: str, url: str, downloaded: Path, size: int) -> tuple[float, float, float]:
    rest(downloaded.parent, size)
    curl = seconds(run, "curl", "--silent", "--fail", "--output", str(downloaded), url)
    flush = seconds(fsync, downloaded)
    cp = seconds(run, aws, "s3", "cp", str(downloaded), "s3://lake/theirs.csv")
    downloaded.unlink()  # to write over a file takes twice as long
    return curl, flush, cp


def started_store(certificate: Path | None, memory: int) -> tuple[BaseProcess, str]:
    ours, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=store, args=(its, certificate, memory), daemon=True)
    os.environ |= KEEPS_ITS_MEMORY
    process.start()
    for name in KEEPS_ITS_MEMORY:
        del os.environ[name]
    return process, ours.recv()


def compare(aws: str, size: int, runs: int, folder: Path, *, plain: bool) -> None:
    bundle = write_bundle(folder)
    source, downloaded = folder / "source.csv", folder / "downloaded.csv"
    rows = write_csv(source, size, *CONTENTS["no quotes"])
    from_server, server_end = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(source, server_end), daemon=True)
    server.start()
    moto, endpoint = started_store(None if plain else folder, MEMORY * size)
    url = f"http://127.0.0.1:{from_server.recv()}/file.csv"
    os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_CA_BUNDLE": str(bundle), **LOGIN, **NO_OTHERS}
    theirs, ours = [], []
    try:
        run(aws, "s3", "mb", "s3://lake")
        start = statistics.median(seconds(run, aws, "--version") for _ in range(3))
        for turn in range(WARMING_UP + runs):
            if turn % 2:
                mine, other = our_turn(url, rows, folder, size), their_turn(aws, url, downloaded, size)
            else:
                other, mine = their_turn(aws, url, downloaded, size), our_turn(url, rows, folder, size)
            if turn >= WARMING_UP:
                theirs.append((other[0], other[1], other[2] - start))
                ours.append(mine)
    finally:
        for process in (server, moto):
            process.kill()
    report(theirs, ours)


def report(theirs: list[tuple[float, float, float]], ours: list[float]) -> None:
    curl, flush, cp = (statistics.median(each) for each in zip(*theirs, strict=True))
    print("| subject | s, median | with fsync, s |")
    print("| --- | --- | --- |")
    print(f"| curl, to a local file | {curl:.2f} | {curl + flush:.2f} |")
    print(f"| aws s3 cp of that file | {cp:.2f} | {cp:.2f} |")
    print(f"| ours, all verification | {statistics.median(ours):.2f} | {statistics.median(ours):.2f} |")
    without = [mine / (curl + cp) for mine, (curl, _, cp) in zip(ours, theirs, strict=True)]
    with_it = [mine / sum(other) for mine, other in zip(ours, theirs, strict=True)]
    print(f"| ours / (curl + aws), median | {statistics.median(without):.2f} | {statistics.median(with_it):.2f} |")
    print(f"| of {len(ours)} runs: from, to | {_range(without)} | {_range(with_it)} |")


def _range(ratios: list[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aws", default="aws", help="the AWS command line")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where files are kept; default: the folder for temporary files")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--land", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.land:
        land_in_s3(options.land[0], int(options.land[1]), options.land[2])
        return
    if not shutil.which(options.aws):
        raise SystemExit(f"There is no {options.aws}: install awscli in an environment of its own, and give --aws.")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare(options.aws, options.megabytes * 10**6, options.runs, Path(folder), plain=options.plain)


if __name__ == "__main__":
    main()
