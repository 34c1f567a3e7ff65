"""
Writes ``docs/reference.md`` from the signatures and docstrings of what is public: ``make reference``.

Each parameter is described once: where the same was said before, a row leads there.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_agenty import exceptions
from airflow_provider_agenty.api.agents import Agent
from airflow_provider_agenty.api.inputs import AgentInput
from airflow_provider_agenty.api.logs import LogEntry
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.hooks.connected import ConnectedHook
from airflow_provider_agenty.hooks.landing import LandingHook
from airflow_provider_agenty.landing.land import ExportedFile
from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator,
    AgentyResultOperator,
    AgentyStartJobOperator,
    AgentyStopJobOperator,
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger, AgentyJobTrigger
from tests.docs.pages import ROOT
from tests.signatures import parameters_of

PAGE = ROOT / "docs" / "reference.md"
WIDTH = 120

CLASSES: list[type] = [
    AgentyStartJobOperator,
    AgentyJobSensor,
    AgentyExportOperator,
    AgentyResultOperator,
    AgentyStopJobOperator,
    AgentyJobEventTrigger,
    AgentyJobTrigger,
]
VALUES: list[type] = [Job, ExportedFile, Agent, AgentInput, LogEntry]

INTRODUCTION = """\
# Reference

`make reference` writes this page from the docstrings. All names are in the package `airflow_provider_agenty`.

- Operators, sensor and event trigger take Airflow's own parameters too, such as `task_id`, `retries` and `pool`. All
  operators and the sensor work with `.partial().expand()`. Give parameters by name.
- A parameter that can't be used is an `AgentyInputError`, where the DAG file is read if it shows there. A template that
  comes to `None` or to nothing is one too, never the default. `path="books.json"` is a path, not a template file.
- Only `True` and `False` are booleans. Numbers may be numpy's, ids may be text. Seconds are a number or a `timedelta`.
- Where Airflow makes native objects of templates, the text `1.10` becomes a number: write `"'{{ params.name }}'"`.
"""

PLAIN = {"The job.", "The agent."}
"""What is said of a required parameter that needs no row of its own below a method."""


def page() -> str:
    """Return the text of the page."""
    rows = Rows()
    parts = [INTRODUCTION, *(class_section(offered, rows) for offered in CLASSES), hook_section(rows)]
    return "\n".join([*parts, values_section(), errors_section()])


def opening(title: str, introduction: str, *columns: str) -> list[str]:
    """Return the lines with which a section begins: its title, its introduction and the head of its table."""
    head = "|".join(f" {column} " if column else " " for column in columns)
    return [f"## {title}", "", *wrapped(introduction), "", f"|{head}|", "| --- " * len(columns) + "|"]


def class_section(offered: type, rows: Rows) -> str:
    """Return the section of an operator, a sensor or a trigger."""
    module = offered.__module__ if offered.__module__.endswith(".agenty") else "operators.agenty"
    about = Docstring(offered)
    returned = f" Returns: {about.returned}" if about.returned else ""
    introduction = f"`{module.removeprefix('airflow_provider_agenty.')}`. {about.first_paragraph}{returned}"
    lines = opening(offered.__name__, introduction, "parameter", "type", "default", "")
    taken = parameters_of(offered)
    in_order = {name: taken[name] for name in inspect.signature(vars(offered)["__init__"]).parameters if name in taken}
    lines += rows.of(offered.__name__, in_order, about)
    return "\n".join([*lines, ""])


def hook_section(rows: Rows) -> str:
    """Return the section of the hook: its methods, each with its parameters below it."""
    lines = opening(
        "AgentyHook",
        '`hooks.agenty`. `AgentyHook(agenty_conn_id="agenty_default")` reads the connection when it is first needed. '
        "`with AgentyHook() as hook:` closes it. `hook.settings` is what the connection says, `hook.base_url` the "
        "address of the API. Reads are repeated as the connection's `max_attempts` says. Below each method are its "
        "parameters. Those within its brackets may be given by position, all others by name. `agent_id` is text, "
        "`job_id` a number or text.",
        *("method or parameter", "type", "default", ""),
    )
    for name, method in public_methods().items():
        about = Docstring(method)
        returns = annotation(inspect.signature(method).return_annotation)
        what = about.first_paragraph if not about.returned else f"{about.first_paragraph} Returns: {about.returned}"
        parameters = parameters_of(method)
        plain = [each for each in parameters if about.parameters.get(each) in PLAIN and is_required(parameters[each])]
        in_place = [each for each, parameter in parameters.items() if is_in_place(parameter)]
        given = ", ".join(in_place + ["…"] * (len(in_place) < len(parameters)))
        lines.append(f"| **`{name}({given})`** | → {returns} | | {cell(what)} |")
        lines += rows.of(name, {each: parameters[each] for each in parameters if each not in plain}, about)
    return "\n".join([*lines, ""])


def values_section() -> str:
    """Return the section of what the methods return."""
    lines = opening(
        "What the methods return",
        "Frozen dataclasses. Return `to_dict()` from a `@task`: Airflow writes the objects to XCom and then refuses to "
        "read them. Times are aware (UTC), durations `timedelta`.",
        *("class", "fields", "properties"),
    )
    for value in VALUES:
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(value))
        properties = ", ".join(f"`{name}`" for name, kind in vars(value).items() if isinstance(kind, property))
        lines.append(f"| `{value.__name__}` | {fields} | {properties} |")
    return "\n".join([*lines, ""])


def errors_section() -> str:
    """Return the section of the errors."""
    lines = opening(
        "Errors",
        "`exceptions`. A final error is an `AirflowFailException` too: the task fails without using up its retries. "
        "Each error can be pickled with what it carries.",
        *("error", "is a", "final", ""),
    )
    for error in errors():
        final = "yes" if exceptions.AirflowFailException in error.__mro__ else ""
        what = cell(Docstring(error).first_paragraph)
        lines.append(f"| `{error.__name__}` | `{error.__bases__[0].__name__}` | {final} | {what} |")
    return "\n".join([*lines, ""])


def errors() -> list[type[Exception]]:
    """Return the errors, in the order of their module."""
    return [
        value
        for value in vars(exceptions).values()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == exceptions.__name__
    ]


def public_methods() -> dict[str, Callable[..., Any]]:
    """Return the hook's own methods, but for those that Airflow alone calls."""
    return {
        name: value
        for kind in (AgentyHook, LandingHook, ConnectedHook)
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, classmethod)
    }


class Rows:
    """The rows of parameters: one that has the same said of it as before comes in a row that leads there."""

    def __init__(self) -> None:
        self._described: dict[tuple[str, str, str, str], str] = {}

    def of(self, place: str, parameters: dict[str, inspect.Parameter], about: Docstring) -> Iterator[str]:
        """
        Yield a row for each parameter of which something new is said, and one for those that are described elsewhere.

        :param place: The class or method, as others refer to it.
        """
        elsewhere: dict[str, list[str]] = {}
        for name, parameter in parameters.items():
            kind = annotation(parameter.annotation)
            default = "required" if is_required(parameter) else f"`{as_text(parameter.default)}`"
            what = about.parameters.get(name)
            there = self._described.get((name, kind, default, in_short(what))) if what else about.refers_to
            if there is None:
                assert what, f"{place} says nothing of {name}"
                self._described[name, kind, default, in_short(what)] = place
                yield f"| `{name}` | {kind} | {default} | {cell(what)} |"
            else:
                elsewhere.setdefault(there, []).append(f"`{name}`")
        if elsewhere:
            names = ", ".join(name for names in elsewhere.values() for name in names)
            places = [f"{', '.join(names)} as in `{there}`" for there, names in elsewhere.items()]
            yield f"| {names} | | | {'; '.join(places) if len(places) > 1 else f'as in `{next(iter(elsewhere))}`'} |"


def in_short(what: str) -> str:
    """Return what is said of a parameter without its default and what stands in brackets."""
    return re.sub(r" \([^)]*\)| Default.*$", "", what)


def is_required(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter has no default."""
    return parameter.default is parameter.empty


def is_in_place(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter has to be given, by position if one likes."""
    return is_required(parameter) and parameter.kind is parameter.POSITIONAL_OR_KEYWORD


def as_text(default: Any) -> str:
    """Return a default as it stands in a DAG."""
    return repr(default).replace("'", '"')


def annotation(given: Any) -> str:
    """Return a type as code, without where it comes from; alternatives without the ``|`` that ends a cell."""
    text = given if isinstance(given, str) else getattr(given, "__name__", str(given))
    return " or ".join(f"`{each}`" for each in re.sub(r"\b(?:\w+\.)+(?=\w)", "", text).split(" | "))


def cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return text.replace("|", "\\|")


def wrapped(text: str) -> list[str]:
    """Return a text in lines, none of which ends within code."""
    whole = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


class Docstring:
    """
    A docstring, taken apart.

    :param item: What has it.
    """

    def __init__(self, item: Any) -> None:
        text = inspect.getdoc(item) or ""
        head, *fields = re.split(r"^:(?=param |return|raises )", text, flags=re.MULTILINE)
        self.first_paragraph = markdown(head.split("\n\n")[0])
        """What it begins with."""
        self.parameters: dict[str, str] = {}
        """What it says of each parameter."""
        self.returned = ""
        """What it says is returned."""
        referred = re.findall(r":(?:meth|class):`(?:AgentyHook\.)?(\w+)`", head)
        self.refers_to = referred[-1] if referred else None
        """Where it says that the other parameters are described."""
        for field in fields:
            name, _, rest = field.partition(":")
            kind, _, subject = name.partition(" ")
            if kind == "param":
                self.parameters[subject] = without_default(markdown(rest))
            elif kind == "return":
                self.returned = markdown(rest)


def markdown(text: str) -> str:
    """Return reST as Markdown, in one line."""
    text = " ".join(text.split())
    text = re.sub(r":(?:meth|class|attr|mod|data):`~?([\w.]+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


def without_default(text: str) -> str:
    """Return what is said of a parameter without a last sentence that only repeats its default."""
    return re.sub(r" Default (?:`\w+`|[\d.]+|true|false)\.$", "", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
