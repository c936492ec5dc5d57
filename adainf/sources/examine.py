"""Examine the images of all splits before they are written: the data summary, and copies of held-out images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import canonical_json, sha256
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.png import Pixels
from adainf.shards.format.summary import DataSummary, Findings, SplitSummary
from adainf.sources.base import BadData
from adainf.sources.corrupt import report_all_corrupt
from adainf.sources.folder import FolderImages
from adainf.sources.resize import Selection

_BATCH = 64
"""Images that are decoded ahead, which a stop waits for."""
_HELD_OUT_FIRST = ("test", "validation", "train")


class Examined(NamedTuple):
    """The splits as they are written, and what is known of them."""

    splits: dict[str, Selection]
    summary: DataSummary
    fingerprint: str
    """That of the source, except where older versions understood its images in another way."""


def examine(
    fingerprint: str,
    findings: Findings,
    splits: Mapping[str, Selection],
    classes: list[str],
    reporter: Reporter,
    keep_copies_together: bool = False,
) -> Examined:
    """Read the header of every image, and, to keep copies together, its pixels, so that the result is the same after a kill.

    Raises `BadData` as `Selection` does.
    """
    written, notes = dict(splits), list(findings.notes)
    if keep_copies_together:
        written, note = _keep_together(written, reporter)
        notes += note
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    counted: dict[str, SplitSummary] = {}
    turned = 0
    with reporter.track("examine", total=sum(map(len, written.values()))) as track:
        for name, split in written.items():
            labelled = captioned = 0
            for position in range(len(split)):
                label, has_caption, header = split.describe(position)
                labelled += label is not None
                captioned += has_caption
                if header is not None:
                    swapped = header.orientation >= 5
                    sizes[(header.width_px, header.height_px) if swapped else (header.height_px, header.width_px)] += 1
                    modes[header.mode] += 1
                    turned += header.orientation != 1
                track.advance()
            counted[name] = SplitSummary(images=len(split), labelled=labelled, captioned=captioned)
    if turned:
        notes.append(f"turned {turned:,} images upright, by their EXIF orientation.")
    if counted["train"].labelled and "test" in counted and counted["test"].images and not counted["test"].labelled:
        notes.append(
            "warning: the training images have labels and the test images have none, so no encoder can be judged by a probe; "
            "give a labelled test split (a recipe names it with real.splits)."
        )
    summary = DataSummary.of(findings.model_copy(update={"notes": notes}), counted, classes, sizes, modes)
    changed = {name: len(split) for name, split in written.items() if len(split) != len(splits[name])}
    understood = [turned, changed] if turned or changed else None
    return Examined(written, summary, sha256(canonical_json([fingerprint, understood])) if understood else fingerprint)


def pixel_digest(image: Pixels) -> bytes:
    """SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()


def _digests(split: Selection) -> Iterator[bytes]:
    """The digest of each image, in order; files are decoded by several threads."""

    def digest(position: int) -> bytes:
        return pixel_digest(split[position].image)

    positions = range(len(split))
    if not isinstance(split.images, FolderImages):
        yield from map(digest, positions)
        return
    with ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
        for first in range(0, len(split), _BATCH):  # `map` submits everything at once
            yield from pool.map(digest, positions[first : first + _BATCH])


def _keep_together(splits: dict[str, Selection], reporter: Reporter) -> tuple[dict[str, Selection], list[str]]:
    """The splits, without an image of which a more held-out split has a copy.

    It moves there where both were carved from the same images. A source's own test split stays as it is.
    """
    home: dict[bytes, str] = {}
    kept: dict[str, list[int]] = {name: [] for name in splits}
    moved = left_out = 0
    example = ""
    selections = [splits[name] for name in _HELD_OUT_FIRST if name in splits]
    with (
        report_all_corrupt(selections, reporter),
        reporter.track("compare", total=sum(map(len, selections))) as track,
    ):
        for name in (name for name in _HELD_OUT_FIRST if name in splits):
            split = splits[name]
            for index, digest in zip(split.indices.tolist(), _digests(split), strict=True):
                place = home.setdefault(digest, name)
                if place == name or splits[place].images is split.images:
                    kept[place].append(index)
                    moved += place != name
                else:
                    left_out += 1
                if place != name:
                    example = example or f"{split.images.locate(index).rpartition('/')[2]} is in {name} and in {place}"
                track.advance()
    if not moved + left_out:
        return splits, []
    if not kept["train"]:
        raise BadData(
            "real: every training image is a copy of a held-out one; bring other images, or set real.duplicates: allow"
        )
    together = {name: replace(split, indices=np.array(sorted(kept[name]), np.int64)) for name, split in splits.items()}
    what = " and ".join(
        filter(None, (f"{moved:,} moved to it" if moved else "", f"{left_out:,} left out of the others" if left_out else ""))
    )
    count = moved + left_out
    copies = f"{count:,} exact {'copies' if count > 1 else 'copy'} across splits"
    return together, [f"{copies}, kept in the held-out split only: {what} ({example})."]
