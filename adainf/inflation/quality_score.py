"""What a generated image is worth: from measured quality to q in 0..1, where 1 is as good as the paper's best generator.

The paper weighs one generator (STF, FID 1.94). How weight falls with quality is not in it, so the exchange rates here are
priors of ours: coverage of held-out real images against that of real ones; the share of generated images that a classifier
cannot tell from real ones; and 1.94 / FID where a true Inception FID is known. Coverage alone is kind to blends and to flawed
images that lie near real ones, and a classifier alone to a generator with few modes. Other Fréchet distances have no exchange
rate: they order generators, and misrank images that are blends of others.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from adainf.pipeline.artifacts import Record
from adainf.quality.record import Quality, score_name

PAPER_FID = 1.94
FULL_COVERAGE = 0.9
"""Share of the real images' own coverage at which a generator counts as the paper's best."""
LEAST_QUALITY, LEAST_COVERAGE, MOST_COPIES, LEAST_AUTHENTICITY = 0.02, 0.1, 0.5, 15.0
"""Beyond these the images are refused: q, coverage as a share of its null, copy rate, points of AuthPct below its null."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Percent = Annotated[float, Field(ge=0, le=100)]


class Measured(Record):
    """What is known of the generated images; a null is the same number for as many real images."""

    space: str = ""
    """The features that coverage and total variation were measured in."""
    coverage: _Share | None = None
    coverage_null: Annotated[float, Field(gt=0, le=1)] | None = None
    total_variation: _Share | None = None
    """At least so large a share of the generated images is unlike any real one, as a classifier shows."""
    total_variation_null: Annotated[float, Field(ge=0, lt=1)] | None = None
    copy_rate: _Share = 0.0
    """Share of the generated images that copy a training image and more than held-out real ones do."""
    authenticity_pct: _Percent | None = None
    authenticity_pct_null: _Percent | None = None
    fid: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """True Inception FID."""

    @classmethod
    def of(cls, quality: Quality) -> Measured:
        """What counts of all that was measured: coverage and total variation in the features of the judge, and copies in
        pixels, where they are beyond doubt. Held-out real images resemble training images too, so the copy rate is what goes
        beyond theirs.
        """
        scores, judge = quality.scores, quality.judge
        coverage, apart = (scores[score_name(metric, judge)] for metric in ("coverage", "total_variation"))
        copies, authentic = scores["copy_rate"], scores["authenticity_pixels"]
        inception = scores.get("fid_inception")
        return cls(
            space=judge,
            coverage=coverage.value,
            coverage_null=coverage.null,
            total_variation=apart.value,
            total_variation_null=apart.null,
            copy_rate=max(copies.value - copies.null, 0.0),
            authenticity_pct=100 * authentic.value,
            authenticity_pct_null=100 * authentic.null,
            fid=inception.value if inception else None,
        )

    @property
    def relative_coverage(self) -> float | None:
        """Coverage as a share of what real images have."""
        return None if self.coverage is None or self.coverage_null is None else self.coverage / self.coverage_null

    @property
    def relative_overlap(self) -> float | None:
        """The share of generated images that may be real ones, of what it is for real images."""
        if self.total_variation is None or self.total_variation_null is None:
            return None
        return (1 - self.total_variation) / (1 - self.total_variation_null)


class Worth(NamedTuple):
    """What the images of one source are worth."""

    quality: float
    """q, 0..1."""
    formula: str
    is_measured: bool
    by_fid: bool
    """Whether a true FID is known."""
    original_share: float
    """Of those that are no copies."""
    refused: str | None

    @classmethod
    def of(cls, measured: Measured | None) -> Worth:
        """By what was measured; None, nothing, counts as the paper's best."""
        known = measured or Measured()
        found = quality(known)
        q, formula = found or (1.0, "assumed, not measured")
        return cls(q, formula, found is not None, known.fid is not None, 1 - known.copy_rate, refusal(known))

    def effective(self, images: int) -> float:
        """How many real images so many of them count for: q M'."""
        return self.quality * self.original_share * images


def quality(measured: Measured) -> tuple[float, str] | None:
    """q and the formula it came by; None where nothing was measured that has an exchange rate."""
    rates = []
    if measured.relative_coverage is not None:
        rates.append((min(measured.relative_coverage / FULL_COVERAGE, 1.0), f"C / ({FULL_COVERAGE:g} C0), coverage"))
    if measured.relative_overlap is not None:
        rates.append((min(measured.relative_overlap, 1.0), "(1 - TV) / (1 - TV0), told from real images"))
    if measured.fid is not None:
        rates.append((min(PAPER_FID / measured.fid, 1.0), f"{PAPER_FID:g} / FID"))
    return min(rates) if rates else None


def refusal(measured: Measured) -> str | None:
    """Why these images must not be trained on, or None."""
    coverage, found = measured.relative_coverage, quality(measured)
    if coverage is not None and coverage < LEAST_COVERAGE:
        return f"they cover {100 * coverage:.1f} % of what real images cover, less than {100 * LEAST_COVERAGE:g} %"
    if found is not None and found[0] < LEAST_QUALITY:
        return f"their quality q is {found[0]:.3g}, less than {LEAST_QUALITY:g}"
    if measured.copy_rate > MOST_COPIES:
        return f"{100 * measured.copy_rate:.0f} % of them copy a training image"
    if measured.authenticity_pct is not None and measured.authenticity_pct_null is not None:
        below = measured.authenticity_pct_null - measured.authenticity_pct
        if below > LEAST_AUTHENTICITY:
            return f"they lie nearer to training images than real ones do (AuthPct {below:.0f} points below its null)"
    return None
