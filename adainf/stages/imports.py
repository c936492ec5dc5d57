"""Import: images that exist already → ``generated/``, in place of fit and generate, as the recipe's provenance declares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.artifacts import Manifest, Run
from adainf.chain import request, require_inputs
from adainf.progress import Reporter
from adainf.recipe import Generate, ImportedImages, Recipe
from adainf.shards.manifest import ShardSet, Split
from adainf.shards.writer import write_split
from adainf.sources import BadData, SourceImages, open_import
from adainf.sources.uniform import Chosen

NAME = "generated"

_CHECKED_IMAGES = 2048
"""Images that the channel-order check looks at: their means are known to a fraction of a grey level."""
_STANDARD_ERRORS = 5.0
"""How far R - B must lie from zero to have a sign; at 5 sampling noise is wrong once in some millions."""
_LEAST_DIFFERENCE = 2.0
"""The same in grey levels of 255: a generator's colours may well drift that far."""


def import_generated(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Write the imported images as the generated ones, or find them written already.

    They must have the height and width of the run's real images (after `real.image_size_px`); labels are dropped. Raises
    `BadInput`; data that cannot be read leave nothing behind.
    """
    generator = recipe.generator
    if not isinstance(generator, ImportedImages):
        raise TypeError(f"generator.kind is {generator.kind}, not import")
    inputs = require_inputs(recipe, run, NAME)
    done = run.find(NAME)
    if done is not None:
        # The images are not asked for again: the run is whole without them.
        run.claim(NAME, request(recipe, NAME, inputs, done.request.inputs.get("data")))
        reporter.say("generate: done already (same recipe and data settings); skipped")
        return done
    images, fingerprint = open_import(generator)
    chosen = _choose(recipe, generator, images, inputs["real"].content_as(ShardSet))
    wanted = request(recipe, NAME, inputs, fingerprint)
    finished = run.claim(NAME, wanted)
    if finished is not None:
        return finished
    try:
        split = _write(run, chosen, recipe.generate, reporter)
    except BadData:
        run.discard(NAME)
        raise
    origin: dict[str, JsonValue] = {
        **generator.provenance.model_dump(mode="json"),
        "kind": "import",
        "channel_order_in_file": generator.channel_order,
    }
    shards = ShardSet(height_px=chosen.height_px, width_px=chosen.width_px, splits={"train": split}, origin=origin)
    manifest = Manifest(request=wanted, content=shards.model_dump(mode="json"))
    run.commit(NAME, manifest)
    reporter.say(f"generate: done, {len(chosen):,} images imported")
    return manifest


def _write(run: Run, chosen: Chosen, generate: Generate, reporter: Reporter) -> Split:
    with reporter.track("import", total=len(chosen)) as track:
        return write_split(
            run, NAME, "train", len(chosen), generate.shard_images, chosen.take, track.advance, generate.compression
        )


def _choose(recipe: Recipe, generator: ImportedImages, images: SourceImages, real: ShardSet) -> Chosen:
    """The images to take, checked as far as that costs little: their number, the first sizes, the channel order."""
    count = recipe.generate.images or len(images)
    if count > len(images):
        raise BadData(
            f"{generator.path} holds {len(images)} images, fewer than generate.images {count}; set generate.images to at "
            f"most {len(images)}, or null for all"
        )
    chosen = Chosen(
        images,
        _spread(len(images), count),
        *real.image_size,
        recipe.real.image_size_px,
        bgr=generator.channel_order == "BGR",
        labelled=False,
    )
    _check_channel_order(generator, chosen, real.splits["train"])
    return chosen


def _spread(available: int, count: int) -> NDArray[np.int64]:
    """`count` indices evenly over all: the first ones would be of few classes where a file is sorted by class."""
    return np.arange(count, dtype=np.int64) * available // count


def _check_channel_order(generator: ImportedImages, chosen: Chosen, real: Split) -> None:
    """Refuse an order that the real images contradict.

    With means m of the imported and r of the real images, m is nearer to r with R and B swapped exactly where m_R - m_B
    and r_R - r_B differ in sign: |m - r|^2 - |swap(m) - r|^2 = -2 (m_R - m_B) (r_R - r_B). Both differences must stand
    clear of zero; grey images have none.
    """
    checked = _spread(len(chosen), min(len(chosen), _CHECKED_IMAGES))
    means_N3 = np.array([chosen[int(position)].image.mean(axis=(0, 1)) for position in checked])
    red_less_blue = means_N3[:, 0] - means_N3[:, 2]
    spread = red_less_blue.std(ddof=1) if len(checked) > 1 else np.inf
    imported_difference = float(red_less_blue.mean())
    assert real.channel_means is not None  # ingest has decoded every image
    real_difference = real.channel_means[0] - real.channel_means[2]
    clear = all(
        abs(difference) > max(_LEAST_DIFFERENCE, _STANDARD_ERRORS * spread / np.sqrt(count))
        for difference, count in ((imported_difference, len(checked)), (real_difference, real.images))
    )
    if clear and imported_difference * real_difference < 0:
        declared, other = ("RGB", "BGR") if generator.channel_order == "RGB" else ("BGR", "RGB")
        raise BadData(
            f"{generator.path}: read as {declared}, red exceeds blue by {imported_difference:.1f} on average, but by "
            f"{real_difference:.1f} in the real images: the channels are in the other order; set "
            f"generator.channel_order: {other}"
        )
