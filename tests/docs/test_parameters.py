"""
The tables of docs/operators.md against the code: each parameter with its default, and none that is gone.

Each public class has a section named after it, with a table whose rows begin with parameter and default. The methods of
the hook stand there with their signatures.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.hooks.connected import ConnectedHook
from airflow_provider_agenty.hooks.landing import LandingHook
from airflow_provider_agenty.operators import agenty as operators
from airflow_provider_agenty.sensors import agenty as sensors
from airflow_provider_agenty.triggers import agenty as triggers
from tests.docs.pages import ROOT, rows, section
from tests.signatures import parameters_of

PAGE = ROOT / "docs" / "operators.md"


def public_classes() -> list[type]:
    """Return the operators, sensors and triggers that this provider offers."""
    ends = {operators: "Operator", sensors: "Sensor", triggers: "Trigger"}
    return [
        value
        for module, end in ends.items()
        for name, value in vars(module).items()
        if name.startswith("Agenty") and name.endswith(end)
    ]


def public_methods() -> dict[str, Callable[..., Any]]:
    """Return the hook's own methods, but for what Airflow alone calls."""
    return {
        name: value
        for kind in (ConnectedHook, LandingHook, AgentyHook)
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, classmethod)
    }


def as_text(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    return f"`{default!r}`".replace("'", '"')


def signature(name: str, function: Callable[..., Any]) -> str:
    """Return a method's signature without its types."""
    whole = inspect.signature(function)
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for each, parameter in whole.parameters.items()
        if each != "self"
    ]
    text = str(whole.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return name + text.replace("'", '"')


def documented_parameters(name: str) -> dict[str, list[str]]:
    """Return the rows of the table of parameters in the section of a class, by parameter."""
    found = [row for row in rows(section(PAGE, name)) if re.fullmatch(r"`\w+`", row[0])]
    return {row[0].strip("`"): row[1:] for row in found}


def documented_in_docstring(item: Any) -> set[str]:
    """Return the parameters that a docstring names, or one to which it refers as ``:meth:``."""
    text = inspect.getdoc(item) or ""
    referred = (documented_in_docstring(getattr(AgentyHook, name)) for name in re.findall(r":meth:`(\w+)`", text))
    return set(re.findall(r":param (\w+):", text)).union(*referred)


@pytest.mark.parametrize("offered", public_classes(), ids=lambda offered: offered.__name__)
def test_each_parameter_is_on_the_page_with_its_default(offered):
    documented = documented_parameters(offered.__name__)
    defaults = {name: as_text(parameter.default) for name, parameter in parameters_of(offered).items()}
    assert {name: cells[0] for name, cells in documented.items()} == defaults
    assert all(cells[-1] for cells in documented.values())


@pytest.mark.parametrize("offered", public_classes(), ids=lambda offered: offered.__name__)
def test_the_page_says_which_parameters_are_templated(offered):
    templated = {name for name, cells in documented_parameters(offered.__name__).items() if "templated" in cells[-1]}
    assert templated == set(getattr(offered, "template_fields", ()))


def test_each_method_of_the_hook_is_on_the_page_with_its_signature():
    documented = [row[0].strip("`") for row in rows(section(PAGE, "AgentyHook")) if row[0].endswith(")`")]
    assert sorted(documented) == sorted(signature(name, method) for name, method in public_methods().items())


@pytest.mark.parametrize(
    "item",
    [
        *(pytest.param(offered, id=offered.__name__) for offered in public_classes()),
        *(pytest.param(method, id=f"AgentyHook.{name}") for name, method in public_methods().items()),
    ],
)
def test_each_parameter_is_in_the_docstring(item):
    named = set(re.findall(r":param (\w+):", inspect.getdoc(item) or ""))
    documented, taken = documented_in_docstring(item), set(parameters_of(item))
    if item is operators.AgentyResultOperator:
        documented |= documented_in_docstring(operators.AgentyExportOperator)
    assert named <= taken <= documented
