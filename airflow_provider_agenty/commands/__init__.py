"""The commands of ``python -m airflow_provider_agenty``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from airflow_provider_agenty.commands import forget_starts


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command and return its exit status.

    :param arguments: The arguments. Default: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_agenty", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (forget_starts,):
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except Exception as error:
        sys.stderr.write(f"{options.command}: {error}\n")
        return 1
    return status
