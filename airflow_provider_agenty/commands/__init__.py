"""
The commands of ``python -m airflow_provider_agenty`` and, on Airflow 3.2 and later, of ``airflow agenty``.

Airflow imports this module whenever its command line starts: it imports the other ones when a command is run.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

_SECONDS_IN = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}

Argument = tuple[str, dict[str, Any]]


class Command:
    """A command: what it is called, which function of this package runs it, and what that is told."""

    def __init__(self, name: str, function: str, explanation: str, *arguments: Argument) -> None:
        self.name = name
        self.function = function
        self.help = explanation
        self.arguments = arguments


def age(text: str) -> float:
    """Return the seconds of an age such as ``30d``."""
    found = re.fullmatch(r"(\d+)([mhdw])", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 12h, 30d or 4w")
    return float(int(found[1]) * _SECONDS_IN[found[2]])


def _argument(name: str, **options: Any) -> Argument:
    return name, options


_CONNECTION = _argument(
    "--conn-id", default="agenty_default", metavar="ID", help="the Airflow connection. Default: agenty_default"
)
_JSON = _argument("--json", action="store_true", help="write JSON, for scripts")
_JOB = _argument("job_id", metavar="ID", help="the id of the job")

COMMANDS = (
    Command(
        "doctor",
        "doctor.doctor",
        "check the connection, this Airflow and, if named, a place for files; exit status 1 if something is wrong",
        _argument("--path", metavar="PATH", help="a place for files, such as s3://bucket/folder/"),
        _argument("--write", action="store_true", help="write a small file there, read it back and remove it"),
        _CONNECTION,
        _JSON,
    ),
    Command(
        "agents",
        "jobs.list_agents",
        "list the agents, with their ids",
        _argument("--project", metavar="ID", help="only the agents of this project"),
        _argument("--tag", metavar="TAG", help="only agents with this tag"),
        _CONNECTION,
        _JSON,
    ),
    Command(
        "jobs",
        "jobs.list_jobs",
        "list the newest jobs",
        _argument("--agent", metavar="ID", help="only the jobs of this agent"),
        _argument("--active", action="store_true", help="only jobs that are not over, of the newest 1,000"),
        _argument("--limit", default="20", metavar="N", help="how many to list at most. Default: 20"),
        _CONNECTION,
        _JSON,
    ),
    Command(
        "job",
        "jobs.show_job",
        "show a job",
        _JOB,
        _argument("--logs", action="store_true", help="its log too"),
        _CONNECTION,
        _JSON,
    ),
    Command("stop", "jobs.stop_job", "stop a job", _JOB, _CONNECTION, _JSON),
    Command(
        "land",
        "jobs.land",
        "land the result of a job, or its log, as a file; one that is there is replaced",
        _JOB,
        _argument("path", metavar="PATH", help="where to. It ends in .csv, .jsonl, .parquet, .log or /"),
        _argument("--collection", default="1", metavar="N", help="the collection of the agent. Default: 1"),
        _CONNECTION,
        _JSON,
    ),
    Command(
        "forget-starts",
        "forget_starts.forget_starts",
        "remove the Variables agenty_start_… of tasks that were killed in their last try, before Airflow 3.3",
        _argument(
            "--older-than",
            type=age,
            default="30d",
            metavar="AGE",
            help="how long ago the job was started, such as 12h, 30d or 4w; at least as long as a task may take. "
            "Default: 30d",
        ),
        _argument("--dry-run", action="store_true", help="only show what would be removed"),
        _argument(
            "--api-url",
            metavar="URL",
            help="use the REST API of this Airflow 3, with the token in the environment variable AIRFLOW_API_TOKEN, "
            "in place of the database",
        ),
    ),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m airflow_provider_agenty``."""
    whole = argparse.ArgumentParser(
        prog="python -m airflow_provider_agenty", description="Look after jobs of Agenty and what they need."
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help, description=command.help)
        for name, options in command.arguments:
            one.add_argument(name, **options)
        one.set_defaults(command=command)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command with these arguments, by default those of the process, and return its exit status."""
    options = parser().parse_args(arguments)
    return _run(options.command, options)


def airflow_commands() -> list[Any]:
    """Return the commands as Airflow 3.2 and later take them from providers."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    commands = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=functools.partial(_run_and_exit, command),
            args=[Arg((name,), **options) for name, options in command.arguments],
        )
        for command in COMMANDS
    ]
    return [GroupCommand(name="agenty", help="Look after jobs of Agenty and what they need", subcommands=commands)]


def _run_and_exit(command: Command, options: argparse.Namespace) -> None:
    raise SystemExit(_run(command, options))


def _run(command: Command, options: argparse.Namespace) -> int:
    from airflow_provider_agenty.commands.output import data_output, first_line

    module, _, function = command.function.partition(".")
    try:
        with data_output() as data:
            status: int = getattr(import_module(f"{__name__}.{module}"), function)(options, data)
    except BrokenPipeError:
        return 0  # who reads has seen enough
    except Exception as error:
        sys.stderr.write(f"{command.name}: {first_line(error)}\n")
        return 1
    return status
