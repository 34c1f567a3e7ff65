"""The parameters that a public class or method takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def parameters_of(item: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, or of a class and of those bases of it that are this provider's."""
    if not inspect.isclass(item):
        return named(item)
    inits = [vars(base)["__init__"] for base in reversed(item.__mro__) if is_ours(base)]
    return {name: parameter for init in inits for name, parameter in named(init).items()}


def is_ours(base: type) -> bool:
    return base.__module__.startswith("airflow_provider_agenty.") and "__init__" in vars(base)


def named(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
