"""
The fields of an Agenty connection in Airflow's form, said once.

Airflow 3.2 and later read them from the provider's metadata, older ones ask the hook; both are made from here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CONNECTION_TYPE = "agenty"
HOOK_NAME = "Agenty"
DEFAULT_CONNECTION = "agenty_default"

# Port is shown because Airflow 3.3.1 and 3.3.2 refuse to test a connection that has none, and Extra, which has nothing
# but what the fields below it have, because the "Test" of Airflow 2.11 does nothing in a form without it.
HIDDEN_FIELDS = ("login", "schema")
LABELS = {"password": "API key", "host": "Base URL"}


@dataclass(frozen=True)
class ExtraField:
    """
    A field of the form that is kept in the connection's extra.

    :param name: Its name there.
    :param label: What stands beside it.
    :param description: The help below it. It says the default: not every version shows placeholders.
    :param placeholder: What stands in it while it is empty.
    :param types: What its value may be, as JSON Schema names it. Default: text.
    :param choices: The values there are; empty: any.
    :param suggestions: Values that are offered beside any other.
    """

    name: str
    label: str
    description: str
    placeholder: str
    types: tuple[str, ...] = ("string",)
    choices: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its value, which may also be missing."""
        schema: dict[str, Any] = {"type": [*self.types, "null"]}
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.suggestions:
            schema["examples"] = list(self.suggestions)
        return schema


EXTRA_FIELDS = (
    ExtraField(
        "auth",
        "Authentication",
        "Where the API key goes: header (the default) or query. A key in the query can end up in the logs of proxies.",
        "header",
        choices=("header", "query"),
    ),
    ExtraField(
        "timeout",
        "Timeouts",
        "Seconds to wait for a connection, and then for the next bytes of an answer: a number for both, or JSON. "
        'Default: {"connect": 10, "read": 60}',
        '{"connect": 10, "read": 60}',
        types=("string", "number", "object"),
    ),
    ExtraField(
        "proxies",
        "Proxies",
        'The URL of a proxy, or JSON with one by scheme, such as {"https": "http://proxy.example:3128"}. Default: what '
        "HTTPS_PROXY and NO_PROXY in the environment say.",
        "http://proxy.example:3128",
        types=("string", "object"),
    ),
    ExtraField(
        "verify",
        "TLS verification",
        "true (the default), false, or the path of a file of CA certificates, which has to be on every machine of "
        "Airflow.",
        "true",
        suggestions=("true", "false"),
    ),
    ExtraField(
        "max_attempts",
        "Attempts",
        "How often a read is tried before it counts as failed, the first try counted. Default: 5",
        "5",
        types=("integer",),
    ),
)


def placeholders() -> dict[str, str]:
    """Return what stands in the empty fields, by field."""
    fixed = {
        "password": "Made in Agenty under Settings, API keys",
        "host": "https://api.agenty.com/v2",
        "port": "443",
    }
    return fixed | {field.name: field.placeholder for field in EXTRA_FIELDS}


def connection_type_info() -> dict[str, Any]:
    """Return the connection type as the provider's metadata describes it."""
    return {
        "connection-type": CONNECTION_TYPE,
        "hook-class-name": "airflow_provider_agenty.hooks.agenty.AgentyHook",
        "hook-name": HOOK_NAME,
        "ui-field-behaviour": {
            "hidden-fields": list(HIDDEN_FIELDS),
            "relabeling": dict(LABELS),
            "placeholders": placeholders(),
        },
        "conn-fields": {
            field.name: {
                "label": field.label,
                "description": field.description,
                "schema": field.schema,
            }
            for field in EXTRA_FIELDS
        },
    }


def field_behaviour() -> dict[str, Any]:
    """Return labels, placeholders and hidden fields as a hook describes them before Airflow 3.2."""
    return {
        "hidden_fields": list(HIDDEN_FIELDS),
        "relabeling": dict(LABELS),
        "placeholders": placeholders(),
    }


def form_widgets() -> dict[str, Any]:
    """Return the extra fields as a hook describes them before Airflow 3.2, where the form is made with wtforms."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import IntegerField, StringField
    from wtforms.validators import Optional, any_of

    class TextOrJsonWidget(BS3TextFieldWidget):  # type: ignore[misc]
        """Shows an object as the JSON that it was made from, so that it can be saved again."""

        def __call__(self, field: Any, **attributes: Any) -> Any:
            if isinstance(field.data, dict):
                attributes["value"] = json.dumps(field.data)
            return super().__call__(field, **attributes)

    def widget(field: ExtraField) -> Any:
        field_class = IntegerField if field.types == ("integer",) else StringField
        validators = [Optional(), *([any_of(list(field.choices))] if field.choices else [])]
        return field_class(field.label, widget=TextOrJsonWidget(), validators=validators, description=field.description)

    return {field.name: widget(field) for field in EXTRA_FIELDS}
