"""``python -m airflow_provider_agenty.sandbox``: serve until stopped."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from airflow_provider_agenty import __version__
from airflow_provider_agenty.sandbox import Sandbox

UNKNOWN = """\
What it cannot know about the real Agenty: rate limits and their Retry-After, how long links live, the bodies of
401, 403 and 429, encoding and line ends of its CSV, how long results are kept, how many jobs a plan runs at once."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    options = vars(parser().parse_args(arguments))
    options["parallel_jobs"] = options["parallel_jobs"] or None
    try:
        sandbox = Sandbox(**options).start()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"The sandbox cannot start: {error}\n")
        return 1
    sys.stdout.write(_banner(sandbox))
    sys.stdout.flush()
    stop.wait()
    sandbox.stop()
    return 0


def _banner(sandbox: Sandbox) -> str:
    agents = ", ".join(sandbox.agent_ids)
    return f"""\
Agenty sandbox {__version__}
Address: {sandbox.url}
Key: {sandbox.key}
Downloads: {sandbox.download_url}
Agents: {agents}
AIRFLOW_CONN_AGENTY_DEFAULT='{sandbox.connection_json}'
{UNKNOWN}
Stop with Ctrl-C.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    whole = argparse.ArgumentParser(
        prog="python -m airflow_provider_agenty.sandbox",
        description="Serve Agenty's Jobs API on 127.0.0.1, for trying things out without spending page credits.",
        epilog=UNKNOWN,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = whole.add_argument
    add("--agents", metavar="FOLDER", help="folder of CSV files named after agents; default: sample agents")
    add("--port", type=int, default=0, metavar="N", help="port of the API; 0: a free one")
    add("--download-port", type=int, default=0, metavar="N", help="port of the downloads; 0: a free one")
    add("--key", help="the API key; default: a new one each time")
    add("--seconds", type=float, default=5.0, metavar="S", help="how long a job takes that need not wait")
    add("--parallel-jobs", type=int, default=2, metavar="N", help="jobs that run at once; 0: no limit")
    add("--page-cap", type=int, default=1000, metavar="N", help="most rows or jobs on one page")
    add("--link-seconds", type=float, default=300.0, metavar="S", help="how long a download link can be used")
    add("--stop-status", type=int, default=400, metavar="N", help="HTTP status of an answered stop")
    add("--certfile", metavar="FILE", help="certificate: the API port speaks TLS")
    add("--keyfile", metavar="FILE", help="its key")
    return whole


if __name__ == "__main__":
    sys.exit(main())
