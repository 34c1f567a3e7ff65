"""
The fields of an Agenty connection in Airflow's form, said once.

Airflow 3.2 and later read them from the provider's metadata, older ones ask the hook; both are made from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CONNECTION_TYPE = "agenty"
HOOK_NAME = "Agenty"
DEFAULT_CONNECTION = "agenty_default"

HIDDEN_FIELDS = ("login", "port", "schema")
LABELS = {"password": "API key", "host": "Base URL"}


@dataclass(frozen=True)
class ExtraField:
    """
    A field of the form that is kept in the connection's extra.

    :param name: Its name there.
    :param label: What stands beside it.
    :param description: The help below it.
    :param placeholder: What stands in it while it is empty.
    """

    name: str
    label: str
    description: str
    placeholder: str


EXTRA_FIELDS = (
    ExtraField(
        "auth",
        "Authentication",
        "Where the API key goes: header (the default) or query. A key in the query can end up in the logs of proxies.",
        "header",
    ),
    ExtraField(
        "timeout",
        "Timeouts",
        "Seconds to wait for a connection and for the next bytes of an answer: a number, or JSON with both.",
        '{"connect": 10, "read": 60}',
    ),
    ExtraField(
        "proxies",
        "Proxies",
        "The URL of a proxy, or JSON with one by scheme. Empty: what the environment says.",
        '{"https": "http://proxy.example:3128"}',
    ),
    ExtraField(
        "verify",
        "TLS verification",
        "true (the default), false, or the path of a CA bundle.",
        "true",
    ),
    ExtraField(
        "max_attempts",
        "Attempts",
        "How often a read is tried, the first try counted.",
        "5",
    ),
)


def placeholders() -> dict[str, str]:
    """Return what stands in the empty fields, by field."""
    fixed = {"password": "made in Agenty under Settings, API keys", "host": "https://api.agenty.com/v2"}
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
                "schema": {"type": ["string", "null"]},
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
    from wtforms import StringField
    from wtforms.validators import Optional

    return {
        field.name: StringField(
            field.label, widget=BS3TextFieldWidget(), validators=[Optional()], description=field.description
        )
        for field in EXTRA_FIELDS
    }
