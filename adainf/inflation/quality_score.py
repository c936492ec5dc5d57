"""The quality score q of generated images, 0..1, from measured metrics; 1 is the paper's best generator.

The paper weighs one generator (STF, FID 1.94) and does not state how weight falls with quality, so the scales here are our
priors: coverage of held-out real images, relative to that of real ones; the share of generated images that a classifier cannot
distinguish from real ones; and 1.94 / FID if a true Inception FID is known. Coverage overrates blends and flawed images near
real ones; a classifier overrates a generator with few modes. An Inception FID depends on the data set and on the number of
images, so it decides only where nothing else is known. Other Fréchet distances have no scale: they rank generators of one kind,
but misrank blends of images.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from pydantic import Field

from adainf.pipeline.records import Record
from adainf.quality.record import Quality, score_name

PAPER_FID = 1.94
FULL_COVERAGE = 0.9
"""Share of the real images' coverage at which a generator counts as the paper's best."""
MIN_QUALITY, MIN_RELATIVE_COVERAGE, MAX_AUTHENTICITY_DROP = 0.02, 0.1, 15.0
"""Limits for refusal: q, coverage as a share of its null, points of AuthPct below its null."""
MAX_COPY_RATE, MAX_DUPLICATE_RATE, MAX_CONTAMINATION = 0.5, 0.5, 0.001
"""Limits for refusal: near-duplicates of training images, repetitions, share of the held-out images that were copied."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Percent = Annotated[float, Field(ge=0, le=100)]


class Measured(Record):
    """The measured metrics of generated images; a null is the same metric for as many real images."""

    space: str = ""
    """The feature space of coverage and total variation."""
    coverage: _Share | None = None
    coverage_null: Annotated[float, Field(gt=0, le=1)] | None = None
    total_variation: _Share | None = None
    """Lower bound from a classifier: the share of generated images that are unlike any real one."""
    total_variation_null: Annotated[float, Field(ge=0, lt=1)] | None = None
    copy_rate: _Share = 0.0
    """Share of generated images that are near-duplicates of training images, in excess of held-out real ones."""
    duplicate_rate: _Share = 0.0
    """Share of generated images that repeat another one pixel by pixel, in excess of training images."""
    contamination: _Share = 0.0
    """Share of the validation and test images of which a generated image is an exact copy."""
    authenticity_pct: _Percent | None = None
    authenticity_pct_null: _Percent | None = None
    fid: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """True Inception FID."""

    @classmethod
    def of(cls, quality: Quality) -> Measured:
        """The metrics that the plan uses: coverage and total variation in the primary space, and copies in pixels, where they
        are unambiguous. Held-out real images resemble training images too, so their copy rate is subtracted.
        """
        scores, space = quality.scores, quality.primary_space
        coverage, apart = (scores[score_name(metric, space)] for metric in ("coverage", "total_variation"))
        copies, repeated, authentic = (scores[name] for name in ("copy_rate", "duplicate_rate", "authenticity_pixels"))
        held_out = scores.get("held_out_copied")  # a quality measured by an older version lacks it
        inception = scores.get("fid_inception")
        return cls(
            space=space,
            coverage=coverage.value,
            coverage_null=coverage.null,
            total_variation=apart.value,
            total_variation_null=apart.null,
            copy_rate=max(copies.value - copies.null, 0.0),
            duplicate_rate=max(repeated.value - repeated.null, 0.0),
            contamination=held_out.value if held_out else 0.0,
            authenticity_pct=100 * authentic.value,
            authenticity_pct_null=100 * authentic.null,
            fid=inception.value if inception else None,
        )

    @property
    def relative_coverage(self) -> float | None:
        """Coverage as a share of that of real images."""
        return None if self.coverage is None or self.coverage_null is None else self.coverage / self.coverage_null

    @property
    def relative_overlap(self) -> float | None:
        """Upper bound of the share of generated images that are indistinguishable from real ones, relative to real images."""
        if self.total_variation is None or self.total_variation_null is None:
            return None
        return (1 - self.total_variation) / (1 - self.total_variation_null)


class QualityScore(NamedTuple):
    """The quality score of one source, and how it came about."""

    quality: float
    """q, 0..1."""
    formula: str
    is_measured: bool
    has_fid: bool
    """Whether a true Inception FID is known."""
    novel_share: float
    """Share of the images that are neither near-duplicates of training images nor repetitions of each other."""
    refused: str | None

    @classmethod
    def of(cls, measured: Measured | None) -> QualityScore:
        """From the measured metrics; None (not measured) counts as the paper's best."""
        known = measured or Measured()
        found = quality_score(known)
        q, formula = found or (1.0, "assumed, not measured")
        novel = (1 - known.copy_rate) * (1 - known.duplicate_rate)
        return cls(q, formula, found is not None, known.fid is not None, novel, refusal_reason(known))

    def effective(self, images: int) -> float:
        """Number of real images that `images` of them are equivalent to: q M'."""
        return self.quality * self.novel_share * images


def quality_score(measured: Measured) -> tuple[float, str] | None:
    """q and its formula; None if no usable metric was measured. The formula is stored in the plan."""
    rates = []
    if measured.relative_coverage is not None:
        rates.append((min(measured.relative_coverage / FULL_COVERAGE, 1.0), f"C / ({FULL_COVERAGE:g} C0), coverage"))
    if measured.relative_overlap is not None:
        rates.append((min(measured.relative_overlap, 1.0), "(1 - TV) / (1 - TV0), against a classifier"))
    if measured.fid is not None and not rates:  # a squared distance
        rates.append((min(math.sqrt(PAPER_FID / measured.fid), 1.0), f"sqrt({PAPER_FID:g} / FID)"))
    return min(rates) if rates else None


def refusal_reason(measured: Measured) -> str | None:
    """Why these images must not be trained on, or None. The text is stored in the plan."""
    coverage, found = measured.relative_coverage, quality_score(measured)
    if coverage is not None and coverage < MIN_RELATIVE_COVERAGE:
        return f"they cover {100 * coverage:.1f} % of what real images cover, less than {100 * MIN_RELATIVE_COVERAGE:g} %"
    if found is not None and found[0] < MIN_QUALITY:
        return f"their quality q is {found[0]:.3g}, less than {MIN_QUALITY:g}"
    if measured.contamination > MAX_CONTAMINATION:
        return f"they contain exact copies of {100 * measured.contamination:.3g} % of the validation and test images"
    if measured.duplicate_rate > MAX_DUPLICATE_RATE:
        return f"{100 * measured.duplicate_rate:.0f} % of them repeat another one pixel by pixel"
    if measured.copy_rate > MAX_COPY_RATE:
        return f"{100 * measured.copy_rate:.0f} % of them copy a training image"
    if measured.authenticity_pct is not None and measured.authenticity_pct_null is not None:
        below = measured.authenticity_pct_null - measured.authenticity_pct
        if below > MAX_AUTHENTICITY_DROP:
            return f"they lie nearer to training images than real ones do (AuthPct {below:.0f} points below its null)"
    return None
