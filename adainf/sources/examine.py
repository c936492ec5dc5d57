"""Examine the images of all splits before they are written: the data summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from adainf.pipeline.progress import Reporter
from adainf.shards.format.summary import DataSummary, Findings, SplitSummary
from adainf.sources.resize import Selection


def summarize(findings: Findings, splits: Mapping[str, Selection], classes: list[str], reporter: Reporter) -> DataSummary:
    """The summary of these splits. Reads the header of every image, so that it is the same after a kill."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    counted: dict[str, SplitSummary] = {}
    with reporter.track("examine", total=sum(map(len, splits.values()))) as track:
        for name, split in splits.items():
            labelled = captioned = 0
            for position in range(len(split)):
                label, has_caption, header = split.describe(position)
                labelled += label is not None
                captioned += has_caption
                if header is not None:
                    turned = header.orientation >= 5
                    sizes[(header.width_px, header.height_px) if turned else (header.height_px, header.width_px)] += 1
                    modes[header.mode] += 1
                track.advance()
            counted[name] = SplitSummary(images=len(split), labelled=labelled, captioned=captioned)
    return DataSummary.of(findings, counted, classes, sizes, modes)
