"""
The commands in the shell blocks of the documentation exist, with the options that they are given.

They are not run: each is read by the argument parser that it would meet, and each connection is read by the hook.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from airflow_provider_agenty import commands
from airflow_provider_agenty.hooks.agenty import AgentyHook
from tests.docs.pages import OTHER_PAGES, PAGES, ROOT, blocks

COMMANDS = [
    pytest.param(command, id=f"{block.page.relative_to(ROOT)}:{block.line}:{command[:40]}")
    for page in [*PAGES, *OTHER_PAGES]
    for block in blocks(page, "bash")
    for command in re.sub(r"\\\n\s*", " ", block.code).splitlines()
    if command.strip() and not command.lstrip().startswith("#")
]
CONNECTION = re.compile(r"(?:export )?AIRFLOW_CONN_(?P<name>\w+)=(?P<value>.+)")


def check_airflow(arguments):
    from airflow.cli.cli_parser import get_parser

    get_parser().parse_args(arguments)


def check_make(arguments):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {argument for argument in arguments if "=" not in argument}
    assert asked
    assert asked <= targets


def check_python(arguments):
    if arguments[:2] == ["-m", "airflow_provider_agenty.sandbox"]:
        from airflow_provider_agenty.sandbox import __main__ as command

        command.parser().parse_args(arguments[2:])
    elif arguments[:2] == ["-m", "airflow_provider_agenty"]:
        commands.parser().parse_args(arguments[2:])
    elif arguments[0] != "-m":
        assert (ROOT / arguments[0]).is_file()


def check_pip(arguments):
    assert arguments[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"(?:airflow-provider-agenty|\.)\[([\w,]+)\]", " ".join(arguments)):
        assert set(named.split(",")) <= extras.keys()


CHECKS = {"airflow": check_airflow, "make": check_make, "python": check_python, "pip": check_pip}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_given_like_this(command, monkeypatch):
    if found := CONNECTION.fullmatch(command.strip()):
        [value] = shlex.split(found["value"])
        monkeypatch.setenv(f"AIRFLOW_CONN_{found['name']}", value)
        assert AgentyHook(found["name"].lower()).settings.key
        return
    program, *arguments = shlex.split(command, comments=True)
    name = re.sub(r"3(\.\d+)?$", "", Path(program).name)
    if check := CHECKS.get(name):
        check(arguments)
    elif "/" in program and not program.startswith((".venv", "http")):
        assert (ROOT / program).exists()
