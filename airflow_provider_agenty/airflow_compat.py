"""
Finds the names that this provider imports in the place where each Airflow version keeps them.

Each name is resolved separately, so that one missing name does not pull the others from deprecated modules.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any


def _first(name: str, *modules: str, default: Any = None) -> Any:
    """Return a name from the first of some modules that has it; else the default, if there is one."""
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    if default is None:
        raise ImportError(f"Airflow has no {name} in {', '.join(modules)}")
    return default


if TYPE_CHECKING:
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk import BaseOperator as BaseOperator
    from airflow.sdk import BaseOperatorLink as BaseOperatorLink
    from airflow.sdk import BaseSensorOperator as BaseSensorOperator
    from airflow.sdk import ResumableJobMixin as ResumableJobMixin
    from airflow.sdk.bases.sensor import PokeReturnValue as PokeReturnValue
    from airflow.sdk.configuration import conf as conf
    from airflow.sdk.exceptions import AirflowException as AirflowException
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import AirflowNotFoundException as AirflowNotFoundException
    from airflow.sdk.exceptions import AirflowSensorTimeout as AirflowSensorTimeout
    from airflow.sdk.exceptions import AirflowSkipException as AirflowSkipException
    from airflow.sdk.exceptions import AirflowTaskTimeout as AirflowTaskTimeout
else:
    BaseHook = _first("BaseHook", "airflow.sdk", "airflow.hooks.base")
    BaseOperator = _first("BaseOperator", "airflow.sdk", "airflow.models.baseoperator")
    BaseOperatorLink = _first("BaseOperatorLink", "airflow.sdk", "airflow.models.baseoperatorlink")
    BaseSensorOperator = _first("BaseSensorOperator", "airflow.sdk", "airflow.sensors.base")
    PokeReturnValue = _first("PokeReturnValue", "airflow.sdk.bases.sensor", "airflow.sensors.base")

    try:
        from airflow.sdk import ResumableJobMixin
    except ImportError:

        class ResumableJobMixin:
            """Does the same as Airflow's mixin of this name, which Airflow has since 3.3."""

            external_id_key = "remote_job_id"

            def __init__(self, *, durable: bool = True, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.durable = durable

            def execute_resumable(self, context: Any) -> Any:
                """Go on with the job of an earlier try, or submit one, and wait for it as the operator does."""
                store = context.get("task_state_store") if self.durable else None
                external_id = store.get(self.external_id_key) if store is not None else None
                if external_id:
                    status = self.get_job_status(external_id, context)
                    if self.is_job_active(status):
                        return self.poll_until_complete(external_id, context)
                    if self.is_job_succeeded(status):
                        return self.get_job_result(external_id, context)
                external_id = self.submit_job(context)
                if store is not None:
                    store.set(self.external_id_key, external_id)
                self.poll_until_complete(external_id, context)
                return self.get_job_result(external_id, context)

    conf = _first("conf", "airflow.sdk.configuration", "airflow.configuration")

    _EXCEPTIONS = ("airflow.sdk.exceptions", "airflow.exceptions")
    AirflowException = _first("AirflowException", *_EXCEPTIONS)
    AirflowFailException = _first("AirflowFailException", *_EXCEPTIONS)
    AirflowNotFoundException = _first("AirflowNotFoundException", *_EXCEPTIONS)
    AirflowSensorTimeout = _first("AirflowSensorTimeout", *_EXCEPTIONS)
    AirflowSkipException = _first("AirflowSkipException", *_EXCEPTIONS)
    AirflowTaskTimeout = _first("AirflowTaskTimeout", *_EXCEPTIONS)


def mask_secret(secret: str) -> None:
    """Have Airflow hide a text in all its logs."""
    modules = "airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker"
    _first("mask_secret", *modules)(secret)


def current_task_state(task_instance: Any) -> str | None:
    """Ask Airflow for the state of a task instance, from its process or its trigger; ``None`` if it does not tell."""
    if hasattr(task_instance, "current_state"):  # Airflow 2: from the database
        return _text(task_instance.current_state())
    # In a trigger a task instance has nothing but its fields.
    asked = task_instance if hasattr(task_instance, "get_task_states") else _runtime_task_instance()
    map_index = -1 if task_instance.map_index is None else task_instance.map_index
    mapped = map_index >= 0
    states = asked.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=map_index if mapped else None,
    )
    name = f"{task_instance.task_id}_{map_index}" if mapped else task_instance.task_id
    return _text(states.get(task_instance.run_id, {}).get(name))


def _runtime_task_instance() -> Any:
    return _first("RuntimeTaskInstance", "airflow.sdk.execution_time.task_runner")


def _text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))


def triggerer_template_of(value: Any) -> str | None:
    """Return a value or another task's output as a template for the triggerer; ``None`` if there is none."""
    if isinstance(value, str):
        # Seen on Airflow 3.3.2: a pull from XCom that does not name a map index waits for ever in the triggerer.
        return None if "xcom_pull" in value else value
    if isinstance(value, int):
        return str(value)
    plain = _first("PlainXComArg", "airflow.sdk.definitions.xcom_arg", "airflow.models.xcom_arg")
    if not isinstance(value, plain) or not isinstance(value.operator, BaseOperator):
        return None
    if next(iter(value.operator.iter_mapped_task_groups()), None) is not None:
        return None
    pull = f"task_ids={value.operator.task_id!r}, key={value.key!r}, map_indexes=-1"
    return f"{{{{ task_instance.xcom_pull({pull}) }}}}"


def start_in_triggerer(trigger: str, method: str, arguments: dict[str, Any], timeout: timedelta) -> Any:
    """Return what makes a task start in the triggerer; ``None`` where Airflow can not render templates there."""
    from airflow.triggers import base

    if not hasattr(base.BaseTrigger, "render_template_fields"):
        return None
    return base.StartTriggerArgs(
        trigger_cls=trigger, next_method=method, trigger_kwargs=arguments, next_kwargs=None, timeout=timeout
    )


def is_mapped_to(task: Any, name: str) -> bool:
    """Return whether a task is an instance of a mapped one, and the mapping gives it the parameter."""
    is_mapped = getattr(task, "_BaseOperator__from_mapped", False)
    return bool(is_mapped) and name in getattr(task, "_BaseOperator__init_kwargs", ())


def class_of(task: Any) -> type:
    """Return the class of a task of a DAG, also of a mapped one."""
    mapped = getattr(task, "operator_class", None)
    return mapped if isinstance(mapped, type) else type(task)


HAS_TASK_STATE_STORE = ResumableJobMixin.__module__ != __name__
"""Whether this Airflow keeps a store for each task instance (3.3 and later)."""


def read_variable(key: str) -> str | None:
    """
    Return an Airflow Variable as it is stored, ``None`` if there is none; for Airflow before 3.3, in a task.

    Secrets backends of the worker are not asked: one that is slow would hold up a start, and none has this Variable.
    """
    try:
        comms, runner = _task_sdk()
    except ImportError:
        return _read_variable_of_airflow_2(key)
    answer = runner.SUPERVISOR_COMMS.send(comms.GetVariable(key=key))
    if not isinstance(answer, comms.ErrorResponse):
        return None if answer is None else str(answer.value)
    if answer.error.value == "VARIABLE_NOT_FOUND":
        return None
    raise AirflowException(f"Airflow could not read the Variable {key}: {answer.error.value}")


def write_variable(key: str, value: str, description: str) -> None:
    """Store an Airflow Variable."""
    try:
        comms, runner = _task_sdk()
    except ImportError:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session

        with create_session() as session:
            Variable.delete(key, session=session)
            session.add(Variable(key=key, val=value, description=description))
        return
    answer = runner.SUPERVISOR_COMMS.send(comms.PutVariable(key=key, value=value, description=description))
    if isinstance(answer, comms.ErrorResponse):
        raise AirflowException(f"Airflow could not store the Variable {key}: {answer.error.value}")


def delete_variable(key: str) -> None:
    """Remove an Airflow Variable."""
    try:
        comms, runner = _task_sdk()
    except ImportError:
        from airflow.models.variable import Variable

        Variable.delete(key)
        return
    runner.SUPERVISOR_COMMS.send(comms.DeleteVariable(key=key))


def once_the_state_is_stored(task_instance: Any, call: Callable[[], None]) -> None:
    """
    Call a function once Airflow has stored how a task ended. The task's last callback uses this.

    Airflow 2 runs callbacks before it stores the state, and retries a task that is killed in between. It tells
    listeners right before the task's process ends.

    :param task_instance: The task instance.
    :param call: The function.
    """
    # Only Airflow 2 has this, and only in a process of the task's own.
    if not getattr(task_instance, "raw", False):
        call()
        return
    from airflow.listeners import hookimpl
    from airflow.listeners.listener import get_listener_manager

    class Listener:
        @hookimpl
        def before_stopping(self) -> None:
            call()

    get_listener_manager().add_listener(Listener())


def _task_sdk() -> tuple[Any, Any]:
    return import_module("airflow.sdk.execution_time.comms"), import_module("airflow.sdk.execution_time.task_runner")


def _read_variable_of_airflow_2(key: str) -> str | None:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(Variable).filter(Variable.key == key).one_or_none()
        return None if row is None else str(row.get_val())


def read_xcom(task_instance: Any, key: str) -> Any:
    """Return a value that a task instance, given itself or by its key, pushed; ``None`` if it pushed none."""
    return _xcom().get_value(ti_key=task_instance, key=key)


def write_xcom(task_instance: Any, key: str, value: Any) -> None:
    """Push a value for a task instance where there is no context, such as in a trigger."""
    _xcom().set(
        key=key,
        value=value,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=-1 if task_instance.map_index is None else task_instance.map_index,
    )


def _xcom() -> Any:
    return _first("XCom", "airflow.sdk.execution_time.xcom", "airflow.models.xcom")


def asset_class() -> Any:
    """Return the class of assets, which Airflow 2 calls datasets."""
    try:
        return _first("Asset", "airflow.sdk.definitions.asset")
    except ImportError:
        return _first("Dataset", "airflow.datasets")


def asset_types() -> tuple[type, ...]:
    """Return the classes of outlets that stand for one asset: assets and, in Airflow 3, references to them."""
    try:
        return asset_class(), _first("AssetRef", "airflow.sdk.definitions.asset")
    except ImportError:
        return (asset_class(),)


@functools.cache
def stats() -> Any:
    """Return what sends Airflow's metrics from this process; ``None`` where they are off."""
    switches = "statsd_on", "statsd_datadog_enabled", "otel_on"
    if not any(conf.getboolean("metrics", switch, fallback=False) for switch in switches):
        return None
    found = []
    # From 3.2 on a worker sets up that of the SDK, a triggerer the other. Before it there is one, which sets itself up.
    for module in ("airflow.sdk.observability.stats", "airflow.observability.stats"):
        try:
            found.append(import_module(module).Stats)
        except ImportError:
            continue
    set_up = [each for each in found if _is_set_up(each)]
    return (set_up or found or [_first("Stats", "airflow.stats")])[0]


def _is_set_up(stats: Any) -> bool:
    """Return whether Airflow has said where a ``Stats`` sends to: in its class (3.2), in its module (3.3)."""
    return bool(vars(stats).get("factory") or getattr(sys.modules[stats.__module__], "_factory", None))


class HookLineage:
    """Airflow's collector of what hooks read and write."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector
        self._word = "asset" if hasattr(collector, "add_input_asset") else "dataset"

    def add_input(self, hook: BaseHook, *, scheme: str, kwargs: dict[str, Any]) -> None:
        """Add an asset that a hook has read, by the arguments of its scheme's factory."""
        add = getattr(self._collector, f"add_input_{self._word}")
        add(context=hook, scheme=scheme, **{f"{self._word}_kwargs": kwargs})

    def add_output(self, hook: BaseHook, *, uri: str, extra: dict[str, Any]) -> None:
        """Add an asset that a hook has written."""
        add = getattr(self._collector, f"add_output_{self._word}")
        add(context=hook, uri=uri, **{f"{self._word}_extra": extra})


def hook_lineage() -> HookLineage | None:
    """Return what collects the lineage of hooks; ``None`` where nobody reads it."""
    # Asked first where Airflow tells (3.2 and later): a collector imports the assets of all providers.
    readers = _first("get_hook_lineage_readers_plugins", "airflow.sdk.plugins_manager", default=lambda: True)
    if not readers():
        return None
    return HookLineage(_first("get_hook_lineage_collector", "airflow.sdk.lineage", "airflow.lineage.hook")())


def event_trigger_base() -> Any:
    """Return the base of triggers for asset watchers; before Airflow 3, which has none, that of all triggers."""
    triggers = import_module("airflow.triggers.base")
    return getattr(triggers, "BaseEventTrigger", triggers.BaseTrigger)


def shared_stream_producer_base() -> Any:
    """Return the base of what event triggers share a poll by; before Airflow 3.3, which has none, ``object``."""
    return _first("SharedStreamProducer", "airflow.triggers.shared_stream", default=object)


def file_system(scheme: str, conn_id: str | None) -> Any:
    """Return Airflow's file system for the URLs of a scheme, such as ``s3``; ``None``: the store's own connection."""
    # Not by ObjectStoragePath, which takes a "::" in a name for two paths (Airflow 3.2 and later).
    return _first("attach", "airflow.sdk.io", "airflow.io.store")(scheme, conn_id).fs
