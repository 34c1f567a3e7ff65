"""The commands in processes of their own: of this package, and of Airflow where it takes commands from providers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module

import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_agenty import commands
from tests.docs.pages import ROOT, rows, section

takes_commands = pytest.mark.skipif(
    not hasattr(ProvidersManager, "cli_command_functions"),
    reason="needs Airflow 3.2, which takes commands from providers",
)


def test_what_airflow_imports_at_its_start_is_next_to_nothing():
    code = (
        "import argparse, sys; before = set(sys.modules); import airflow_provider_agenty.commands; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    parts = {name.partition(".")[0] for name in done.stdout.split()}
    assert parts <= {
        "__future__",
        "_typing",
        "airflow_provider_agenty",
        "collections",
        "contextlib",
        "importlib",
        "typing",
    }
    assert "airflow_provider_agenty.commands.jobs" not in done.stdout


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda command: command.name)
def test_each_command_has_its_function(command):
    module, _, function = command.function.partition(".")
    assert callable(getattr(import_module(f"{commands.__name__}.{module}"), function))


@pytest.mark.parametrize(
    "program", [["airflow_provider_agenty"], pytest.param(["airflow", "agenty"], marks=takes_commands)], ids=" ".join
)
def test_stdout_has_the_data_and_nothing_else(airflow, sandbox, program, tmp_path):
    [job_id] = sandbox.add_older_jobs("45l0wewqzk", 1)
    connection = {"AIRFLOW_CONN_AGENTY_DEFAULT": sandbox.connection_json}

    landed = airflow("-m", *program, "land", str(job_id), f"{tmp_path}/", "--json", **connection)
    refused = airflow("-m", *program, "job", "7", **connection)

    assert landed.status == 0, landed.err
    assert landed.json["rows"] == 60
    assert "Landed 60 rows" in landed.err  # Airflow writes its log to stdout
    assert (refused.status, refused.out) == (1, "")
    assert "job: GET /jobs/7: HTTP 404" in refused.err
    assert sandbox.key not in "".join((*landed[1:], *refused[1:]))


def test_a_reader_that_has_seen_enough_is_no_error(airflow, sandbox):
    sandbox.add_older_jobs("45l0wewqzk", 3000)
    code = (
        "import os, subprocess, sys\n"
        "jobs = [sys.executable, '-m', 'airflow_provider_agenty', 'jobs', '--limit', '3000']\n"
        "process = subprocess.Popen(jobs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)\n"
        "process.stdout.readline()\n"
        "process.stdout.close()\n"
        "said = process.stderr.read()\n"
        "print(process.wait(), 'Traceback' in said, 'jobs:' in said)\n"
    )

    ran = airflow("-c", code, AIRFLOW_CONN_AGENTY_DEFAULT=sandbox.connection_json)

    assert ran.out.split() == ["0", "False", "False"], ran.err


@takes_commands
def test_airflow_has_a_group_with_each_command():
    from airflow.cli.cli_parser import get_parser

    for arguments in (["doctor", "--write", "--path", "s3://lake/"], ["jobs", "--active"], ["land", "7", "a.csv"]):
        options = get_parser().parse_args(["agenty", *arguments])
        assert options.subcommand == arguments[0]
        assert options.conn_id == "agenty_default"
    [group] = commands.airflow_commands()
    assert [command.name for command in group.subcommands] == [command.name for command in commands.COMMANDS]


def test_the_page_has_each_command_with_its_options():
    described = rows(section(ROOT / "docs" / "operate.md", "Commands"))[1:]
    on_the_page = {
        (names := re.findall(r"[\w-]+", name))[0]: (names[1:], set(re.findall(r"`(--[\w-]+)", options)))
        for name, _, options in described
    }
    assert on_the_page == {
        command.name: (
            [options["metavar"] for name, options in command.arguments if not name.startswith("-")],
            {name for name, _ in command.arguments if name.startswith("-")},
        )
        for command in commands.COMMANDS
    }
