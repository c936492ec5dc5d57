"""Hypothetical inputs of the plan: ``real=50000,generated=1000000,fid=1.94``.

With several sources, each value names its source: ``generated/edm=1000000,fid/edm=1.94,generated/gan=200000``.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from adainf.errors import BadInput
from adainf.inflation.record import PAPER_METHOD, SINGLE_SOURCE, Inputs

COUNTS = {"real": "real_images", "reference": "reference_images"}
PER_SOURCE = {
    "generated": "images",
    "coverage": "coverage",
    "coverage_null": "coverage_null",
    "tv": "total_variation",
    "tv_null": "total_variation_null",
    "copy_rate": "copy_rate",
    "duplicate_rate": "duplicate_rate",
    "contamination": "contamination",
    "authpct": "authenticity_pct",
    "authpct_null": "authenticity_pct_null",
    "fid": "fid",
}


def parse_what_if(text: str, known: Inputs | None, reference_images: int | None = None, method: str = PAPER_METHOD) -> Inputs:
    """`known`, the inputs of a run, with the values of `text` replaced. `reference_images` and `method` are the recipe's.

    Raises `BadInput` for unknown keys, invalid values, missing counts, and a value whose source is ambiguous.
    """
    values: dict[str, Any] = known.model_dump() if known else {"sources": {}}
    values |= {"reference_images": reference_images, "method": method}
    sources: dict[str, dict[str, Any]] = values["sources"]
    for part in text.split(","):
        named, equals, number = (piece.strip() for piece in part.partition("="))
        found = re.match(r"([a-z_]*)(.*)", named)
        name, which = found.groups() if found else (named, "")
        if name == "fd":
            raise BadInput(
                "plan --what-if: fd, a Fréchet distance on features other than Inception's, does not map to a quality score; "
                "give fid, or coverage and coverage_null"
            )
        if not equals or name not in {**COUNTS, **PER_SOURCE} or (which and name in COUNTS):
            raise BadInput(
                f"plan --what-if: invalid {part.strip()!r}: expected one of "
                f"{', '.join(f'{key}=…' for key in (*COUNTS, *PER_SOURCE))}"
            )
        if name in COUNTS:
            values[COUNTS[name]] = number
            continue
        source = sources.setdefault(_source(name, f"{SINGLE_SOURCE}{which}", known), {})
        if name == "generated":
            source["images"] = number
        else:
            source["measured"] = {**(source.get("measured") or {}), PER_SOURCE[name]: number}
    _check(values)
    if values["reference_images"] is None:
        values["reference_images"] = values["real_images"]
    try:
        return Inputs.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        name = next(key for key, target in {**COUNTS, **PER_SOURCE}.items() if target == field)
        expected = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise BadInput(f"plan --what-if: invalid {name}={first['input']!r}: {expected}") from None


def _source(name: str, source: str, known: Inputs | None) -> str:
    """The source of a value. Raises `BadInput` if the run has no such source."""
    if known is not None and source not in known.sources:
        there = ", ".join(f"{name}{other.removeprefix(SINGLE_SOURCE)}=…" for other in known.sources)
        raise BadInput(f"plan --what-if: {name} does not name a source of this run; give {there}")
    return source


def _check(values: dict[str, Any]) -> None:
    """Raise `BadInput` if a count is missing, or a metric lacks its null."""
    missing = [] if "real_images" in values else ["real"]
    missing += [
        f"generated{name.removeprefix(SINGLE_SOURCE)}" for name, source in values["sources"].items() if "images" not in source
    ]
    missing += [] if values["sources"] else ["generated"]
    for name in missing:
        raise BadInput(f"plan --what-if: {name} is missing; give {name}=COUNT, or --run with a run that has its {name} images")
    for source in values["sources"].values():
        measured = source.get("measured") or {}
        for name in ("coverage", "tv"):
            if (measured.get(PER_SOURCE[name]) is None) != (measured.get(PER_SOURCE[f"{name}_null"]) is None):
                raise BadInput(f"plan --what-if: {name} needs {name}_null, the same metric for real images; give both")
        is_typed = isinstance(measured.get("fid"), str)  # a run's own value is a number
        if is_typed and any(measured.get(PER_SOURCE[name]) is not None for name in ("coverage", "tv")):
            raise BadInput("plan --what-if: fid has no effect where coverage or tv is known; leave fid out")
