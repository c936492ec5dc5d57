"""What the plan would be for other numbers: ``real=50000,generated=1000000,fid=1.94``."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from adainf.exitcodes import BadInput
from adainf.inflation.policy import PAPER_REFERENCE_IMAGES, Inputs

COUNTS = {"real": "real_images", "generated": "generated_images", "reference": "reference_images"}
QUALITIES = {
    "coverage": "coverage",
    "coverage_null": "coverage_null",
    "copy_rate": "copy_rate",
    "authpct": "authenticity_pct",
    "authpct_null": "authenticity_pct_null",
    "fid": "fid",
}


def supposed(text: str, known: Inputs | None, reference_images: int = PAPER_REFERENCE_IMAGES) -> Inputs:
    """`known`, what a run holds, with the numbers of `text` in place; without a run the reference is `reference_images`.

    Raises `BadInput` for what is no number of a plan, and for counts that are missing.
    """
    values: dict[str, Any] = known.model_dump(exclude={"measured"}) if known else {"reference_images": reference_images}
    measured = known.measured.model_dump() if known and known.measured else {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name == "fd":
            raise BadInput(
                "plan --what-if: fd, a Fréchet distance in other features than Inception's, has no exchange rate; give fid, or "
                "coverage and coverage_null"
            )
        if not equals or name not in {**COUNTS, **QUALITIES}:
            raise BadInput(
                f"plan --what-if: {part.strip()!r} is none of {', '.join(f'{key}=…' for key in (*COUNTS, *QUALITIES))}"
            )
        if name in COUNTS:
            values[COUNTS[name]] = number
        else:
            measured[QUALITIES[name]] = number
    for name in ("real", "generated"):
        if COUNTS[name] not in values:
            raise BadInput(f"plan --what-if: {name} is missing; give {name}=COUNT, or a run that has its {name} images")
    if ("coverage" in measured) != ("coverage_null" in measured):
        raise BadInput("plan --what-if: coverage needs coverage_null beside it, the same number for real images")
    try:
        return Inputs.model_validate({**values, "measured": measured or None})
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        name = next(key for key, target in {**COUNTS, **QUALITIES}.items() if target == field)
        raise BadInput(f"plan --what-if: {name} is {first['input']!r}; {first['msg'][:1].lower()}{first['msg'][1:]}") from None
