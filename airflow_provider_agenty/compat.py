"""
Where each Airflow version keeps what this provider imports.

Each name is looked for by itself: one of them missing at its newest place must not send the others to a deprecated
one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


def _first(name: str, *modules: str) -> Any:
    """Return a name from the first of some modules that has it."""
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"Airflow has no {name} in {', '.join(modules)}")


if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
    from airflow.sdk.bases.sensor import PokeReturnValue
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
    )
else:
    BaseHook = _first("BaseHook", "airflow.sdk", "airflow.hooks.base")
    BaseOperator = _first("BaseOperator", "airflow.sdk", "airflow.models.baseoperator")
    BaseOperatorLink = _first("BaseOperatorLink", "airflow.sdk", "airflow.models.baseoperatorlink")
    BaseSensorOperator = _first("BaseSensorOperator", "airflow.sdk", "airflow.sensors.base")
    PokeReturnValue = _first("PokeReturnValue", "airflow.sdk.bases.sensor", "airflow.sensors.base")

    conf = _first("conf", "airflow.sdk.configuration", "airflow.configuration")

    _EXCEPTIONS = ("airflow.sdk.exceptions", "airflow.exceptions")
    AirflowException = _first("AirflowException", *_EXCEPTIONS)
    AirflowFailException = _first("AirflowFailException", *_EXCEPTIONS)
    AirflowNotFoundException = _first("AirflowNotFoundException", *_EXCEPTIONS)
    AirflowSensorTimeout = _first("AirflowSensorTimeout", *_EXCEPTIONS)
    AirflowSkipException = _first("AirflowSkipException", *_EXCEPTIONS)
    AirflowTaskTimeout = _first("AirflowTaskTimeout", *_EXCEPTIONS)


def mask_secret(secret: str) -> None:
    """
    Have Airflow hide a text in all its logs.

    :param secret: The text.
    """
    for module in (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        try:
            mask = import_module(module).mask_secret
        except (ImportError, AttributeError):
            continue
        mask(secret)
        return


def read_xcom(ti_key: Any, key: str) -> Any:
    """
    Return a value that a task instance pushed; ``None`` if it pushed none.

    :param ti_key: The key of the task instance.
    :param key: The name of the value.
    """
    return _first("XCom", "airflow.sdk.execution_time.xcom", "airflow.models.xcom").get_value(ti_key=ti_key, key=key)


def object_storage_path() -> Any:
    """Return the class of paths in object stores, which imports fsspec."""
    return _first("ObjectStoragePath", "airflow.sdk", "airflow.io.path")


__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "PokeReturnValue",
    "conf",
    "mask_secret",
    "object_storage_path",
    "read_xcom",
]
