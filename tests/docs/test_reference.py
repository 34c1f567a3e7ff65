"""docs/reference.md is what ``make reference`` writes, and says all there is to say."""

from __future__ import annotations

import pytest

from airflow_provider_agenty.operators import agenty as operators
from airflow_provider_agenty.sensors import agenty as sensors
from airflow_provider_agenty.triggers import agenty as triggers
from tests.docs.pages import ROOT
from tests.docs.reference import CLASSES, Docstring, page, public_methods
from tests.signatures import parameters_of

ITEMS = [
    *(pytest.param(offered, id=offered.__name__) for offered in CLASSES),
    *(pytest.param(method, id=f"AgentyHook.{name}") for name, method in public_methods().items()),
]


def test_the_page_is_what_make_reference_writes():
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == page(), "run: make reference"


def test_each_class_that_is_offered_is_on_the_page():
    ends = {operators: "Operator", sensors: "Sensor", triggers: "Trigger"}
    offered = {
        value
        for module, end in ends.items()
        for name, value in vars(module).items()
        if name.startswith("Agenty") and name.endswith(end)
    }
    assert set(CLASSES) == offered


@pytest.mark.parametrize("item", ITEMS)
def test_a_docstring_describes_no_parameter_that_is_gone(item):
    assert set(Docstring(item).parameters) <= set(parameters_of(item))


@pytest.mark.parametrize("offered", CLASSES, ids=lambda offered: offered.__name__)
def test_a_docstring_says_which_parameters_are_templated(offered):
    about, fields = Docstring(offered), set(getattr(offered, "template_fields", ()))
    templated = {name for name, what in about.parameters.items() if "templated" in what}
    assert templated <= fields
    assert templated == fields or about.refers_to
