"""One line of what the doctor says."""

from __future__ import annotations

from typing import Literal, NamedTuple

from adainf.errors import AdaInfError


class Finding(NamedTuple):
    """What was looked at, and how it is."""

    what: str
    status: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def failed(what: str, error: AdaInfError) -> Finding:
    """As the sentence of an error says it, which ends in the mend."""
    found, _, mend = str(error).partition("; ")
    return Finding(what, "fail", found, mend)
