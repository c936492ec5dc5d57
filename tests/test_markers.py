"""The markers that a test gets from what it uses."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adainf.stages import fit
from tests import markers
from tests.processes import run_on_ranks
from tests.tiny import adainf


def direct() -> None:
    subprocess.run(["true"], check=True)


def by_a_helper() -> None:
    direct()


def in_a_comprehension() -> list[object]:
    return [run_on_ranks(1, direct) for _ in range(1)]


def in_a_helper_of_another_module() -> None:
    adainf("run")


@given(number=st.integers())
def decorated(number: int) -> None:
    direct()


class Helper:
    def start(self) -> None:
        direct()


def by_a_method() -> None:
    Helper().start()


def training() -> None:
    fit.fit  # noqa: B018


def nothing() -> Path:
    return Path("subprocess")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (direct, {"process"}),
        (by_a_helper, {"process"}),
        (in_a_comprehension, {"process"}),
        (in_a_helper_of_another_module, {"process"}),
        (decorated, {"process"}),
        (by_a_method, {"process"}),
        (training, {"heavy"}),
        (nothing, set()),
    ],
)
def test_markers_follow_what_a_function_calls(function: object, expected: set[str]) -> None:
    assert markers._uses(function) == expected


def test_the_modules_that_give_a_marker_exist() -> None:
    assert all(importlib.util.find_spec(name) for names in markers.MODULES.values() for name in names)
