"""What Airflow is told of the provider, checked with Airflow's own means."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files

import jsonschema
import pytest

from airflow_provider_agenty import get_provider_info


def test_the_entry_point_gives_the_provider_info():
    found = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.value.startswith("airflow_provider_agenty")
    ]
    assert len(found) == 1
    assert found[0].load()() == get_provider_info()


def test_the_provider_info_is_valid_by_airflows_schema():
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_module_and_class_that_is_named_exists():
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        modules = [module for entry in info[kind] for module in entry["python-modules"]]
        assert modules
        for module in modules:
            import_module(module)
    classes = [entry["hook-class-name"] for entry in info["connection-types"]] + info["extra-links"]
    for path in classes:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def test_every_function_for_uris_exists_and_both_airflows_read_the_same():
    info = get_provider_info()
    assert info["asset-uris"] == info["dataset-uris"]
    for uris in info["asset-uris"]:
        for name in ("handler", "factory", "to_openlineage_converter"):
            module, _, function = uris[name].rpartition(".")
            assert callable(getattr(import_module(module), function))


def test_every_function_for_commands_exists():
    for path in get_provider_info()["cli"]:
        module, _, function = path.rpartition(".")
        assert callable(getattr(import_module(module), function))


# Airflow 3 also has a newer place for it, which older ones do not.
@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
def test_airflow_finds_the_hook_by_its_connection_type():
    from airflow.providers_manager import ProvidersManager

    from airflow_provider_agenty.hooks.agenty import AgentyHook

    manager = ProvidersManager()
    assert manager.providers["airflow-provider-agenty"].data["name"] == "Agenty"
    hook = manager.hooks["agenty"]
    assert hook is not None
    assert hook.hook_class_name == "airflow_provider_agenty.hooks.agenty.AgentyHook"
    assert hook.hook_name == AgentyHook.hook_name == "Agenty"
    assert hook.connection_type == AgentyHook.conn_type == "agenty"
