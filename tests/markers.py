"""Markers that a test gets from what it uses: its fixtures, and what its functions and their helpers in tests/ name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

FIXTURES = {
    "s3": {"s3_server", "s3_env", "rclone_server"},
    "browser": {"chromium"},
}
MODULES = {
    "process": {"subprocess", "multiprocessing", "torch.multiprocessing", "adainf.generators.program"},
    "kubectl": {"k8s.refresh", "adainf.kubernetes.render"},
    "heavy": {
        "adainf.stages.fit",
        "adainf.stages.pretrain",
        "adainf.stages.run",
        "adainf.stages.verify",
        "adainf.pretraining.loop",
        "adainf.pretraining.trainer",
    },
}
"""A test that names one of these modules, or something defined in one, has the marker."""
NAMES = {"process": {"fork"}, "kubectl": {"kubectl"}}
"""The same for the name of an attribute."""


def mark(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function):
            for marker in sorted(_markers(item)):
                item.add_marker(marker)


def _markers(item: pytest.Function) -> Iterator[str]:
    fixtures = set(item.fixturenames)
    yield from (marker for marker, names in FIXTURES.items() if names & fixtures)
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(isinstance(value, str) and value == "s3" for value in parameters):
        yield "s3"  # a parametrized fixture that asks for s3_env itself
    definitions = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(definition[-1].func for definition in definitions)]
    yield from frozenset().union(*map(_uses, functions))


@functools.cache
def _uses(function: Callable[..., Any]) -> frozenset[str]:
    """The markers of everything that a function names, directly or in helpers of tests/."""
    found: set[str] = set()
    waiting: list[Any] = [function]
    done: set[int] = set()
    while waiting:
        here = waiting.pop()
        if id(here) in done:
            continue
        done.add(id(here))
        if isinstance(here, type):
            waiting += [getattr(member, "fget", member) for member in vars(here).values()]
        here = _plain(here)
        if not isinstance(here, FunctionType) or not here.__module__.startswith("tests."):
            continue
        for name in _names(here.__code__):
            found |= {marker for marker, names in NAMES.items() if name in names}
            value = here.__globals__.get(name)
            module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if not isinstance(module, str):
                continue
            found |= {marker for marker, modules in MODULES.items() if module in modules}
            if module.startswith("tests.") and callable(value):
                waiting.append(value)
    return frozenset(found)


def _plain(function: Any) -> Any:
    """Without decorators: fixtures', Hypothesis's, context managers'."""
    function = getattr(function, "__func__", function)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.unwrap(function) if callable(function) else function


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
