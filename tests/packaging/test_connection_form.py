"""The form of a connection: declared for each version of Airflow in its own way, and the same in all of them."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from airflow_provider_agenty import get_provider_info
from airflow_provider_agenty.hooks.agenty import AgentyHook

[METADATA] = get_provider_info()["connection-types"]
FIELDS = METADATA["conn-fields"]


class Recorded:
    """Stands for a class of wtforms where there is none: keeps what it was made with."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        self.field_class = type(self)


class StringField(Recorded):
    pass


class IntegerField(Recorded):
    pass


class TextWidget:
    def __call__(self, field, **attributes):
        return attributes.get("value", field.data)


@pytest.fixture
def widgets(monkeypatch):
    """What the hook gives to Airflow before 3.2, with wtforms as it is there or as much of it as is used."""
    modules = {
        "wtforms": {"StringField": StringField, "IntegerField": IntegerField},
        "wtforms.validators": {"Optional": lambda: "optional", "any_of": lambda values: ("any of", values)},
        "flask_appbuilder": {},
        "flask_appbuilder.fieldwidgets": {"BS3TextFieldWidget": TextWidget},
    }
    for name, names in modules.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    return AgentyHook.get_connection_form_widgets()


def test_the_hook_itself_has_the_form():
    # Airflow before 3.2 does not look at its base classes.
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= vars(AgentyHook).keys()


def test_both_declarations_have_the_same_fields_labels_and_help(widgets):
    assert {name: field.args[0] for name, field in widgets.items()} == {
        name: field["label"] for name, field in FIELDS.items()
    }
    assert {name: field.kwargs["description"] for name, field in widgets.items()} == {
        name: field["description"] for name, field in FIELDS.items()
    }


def test_both_declarations_have_the_same_types_and_choices(widgets):
    whole_numbers = [name for name, field in widgets.items() if field.field_class is IntegerField]
    assert whole_numbers == [name for name, field in FIELDS.items() if "integer" in field["schema"]["type"]]
    choices = {
        name: validator[1]
        for name, field in widgets.items()
        for validator in field.kwargs["validators"]
        if validator != "optional"
    }
    assert choices == {name: field["schema"]["enum"] for name, field in FIELDS.items() if "enum" in field["schema"]}


def test_every_field_may_stay_empty(widgets):
    assert all("optional" in field.kwargs["validators"] for field in widgets.values())
    assert all("null" in field["schema"]["type"] for field in FIELDS.values())


def test_both_declarations_hide_relabel_and_explain_the_same_standard_fields():
    behaviour = {name.replace("-", "_"): value for name, value in METADATA["ui-field-behaviour"].items()}
    assert behaviour == AgentyHook.get_ui_field_behaviour()
    assert set(behaviour["placeholders"]) == {"password", "host", "port", *FIELDS}


def test_an_object_is_shown_as_json_and_text_as_it_is(widgets):
    widget = widgets["timeout"].kwargs["widget"]
    assert json.loads(widget(SimpleNamespace(data={"connect": 3, "read": 20}))) == {"connect": 3, "read": 20}
    assert widget(SimpleNamespace(data="30")) == "30"


def test_nothing_of_the_form_is_needed_where_the_hook_is_imported():
    import subprocess

    code = (
        "import sys; sys.modules['wtforms'] = sys.modules['flask_appbuilder'] = None\n"
        "from airflow_provider_agenty.hooks.agenty import AgentyHook; print(AgentyHook.get_ui_field_behaviour())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "API key" in done.stdout


@pytest.mark.parametrize("name", ["auth", "timeout", "proxies", "verify", "max_attempts"])
def test_the_default_is_in_the_help_since_not_every_form_shows_placeholders(name):
    assert "default" in FIELDS[name]["description"].lower()
