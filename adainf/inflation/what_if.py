"""What the plan would be for other numbers: ``real=50000,generated=1000000,fid=1.94``.

Of several sources each number says which it is of: ``generated/edm=1000000,fid/edm=1.94,generated/gan=200000``.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from adainf.errors import BadInput
from adainf.inflation.record import ONLY, PAPER_REFERENCE_IMAGES, Inputs

COUNTS = {"real": "real_images", "reference": "reference_images"}
OF_A_SOURCE = {
    "generated": "images",
    "coverage": "coverage",
    "coverage_null": "coverage_null",
    "tv": "total_variation",
    "tv_null": "total_variation_null",
    "copy_rate": "copy_rate",
    "authpct": "authenticity_pct",
    "authpct_null": "authenticity_pct_null",
    "fid": "fid",
}


def supposed(text: str, known: Inputs | None, reference_images: int = PAPER_REFERENCE_IMAGES) -> Inputs:
    """`known`, what a run holds, with the numbers of `text` in place; without a run the reference is `reference_images`.

    Raises `BadInput` for what is no number of a plan, for counts that are missing, and for a number that could be of several
    sources.
    """
    values: dict[str, Any] = known.model_dump() if known else {"reference_images": reference_images, "sources": {}}
    sources: dict[str, dict[str, Any]] = values["sources"]
    for part in text.split(","):
        named, equals, number = (piece.strip() for piece in part.partition("="))
        found = re.match(r"([a-z_]*)(.*)", named)
        name, which = found.groups() if found else (named, "")
        if name == "fd":
            raise BadInput(
                "plan --what-if: fd, a Fréchet distance in other features than Inception's, has no exchange rate; give fid, or "
                "coverage and coverage_null"
            )
        if not equals or name not in {**COUNTS, **OF_A_SOURCE} or (which and name in COUNTS):
            raise BadInput(
                f"plan --what-if: {part.strip()!r} is none of {', '.join(f'{key}=…' for key in (*COUNTS, *OF_A_SOURCE))}"
            )
        if name in COUNTS:
            values[COUNTS[name]] = number
            continue
        source = sources.setdefault(_source(name, f"{ONLY}{which}", known), {})
        if name == "generated":
            source["images"] = number
        else:
            source["measured"] = {**(source.get("measured") or {}), OF_A_SOURCE[name]: number}
    _check(values)
    try:
        return Inputs.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        name = next(key for key, target in {**COUNTS, **OF_A_SOURCE}.items() if target == field)
        raise BadInput(f"plan --what-if: {name} is {first['input']!r}; {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def _source(name: str, source: str, known: Inputs | None) -> str:
    """The source that a number is of. Raises `BadInput` where the run has another or several."""
    if known is not None and source not in known.sources:
        there = ", ".join(f"{name}{other.removeprefix(ONLY)}=…" for other in known.sources)
        raise BadInput(f"plan --what-if: {name} could be of several sources of this run, or of none; give {there}")
    return source


def _check(values: dict[str, Any]) -> None:
    """Raise `BadInput` where a count is missing, or a number that is nothing without another."""
    missing = [] if "real_images" in values else ["real"]
    missing += [f"generated{name.removeprefix(ONLY)}" for name, source in values["sources"].items() if "images" not in source]
    missing += [] if values["sources"] else ["generated"]
    for name in missing:
        raise BadInput(f"plan --what-if: {name} is missing; give {name}=COUNT, or a run that has its {name} images")
    for source in values["sources"].values():
        measured = source.get("measured") or {}
        for name in ("coverage", "tv"):
            if (measured.get(OF_A_SOURCE[name]) is None) != (measured.get(OF_A_SOURCE[f"{name}_null"]) is None):
                raise BadInput(f"plan --what-if: {name} needs {name}_null beside it, the same number for real images")
