"""The result of one check."""

from __future__ import annotations

from typing import Literal, NamedTuple

from adainf.errors import AdaInfError


class Check(NamedTuple):
    """The name of a check, its status, what was found, and how to fix it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


def failed(name: str, error: AdaInfError) -> Check:
    """A failed check from an error message, whose last part is the fix."""
    detail, _, fix = str(error).partition("; ")
    return Check(name, "fail", detail, fix)
