"""``adainf shards verify RUN/generated --regenerate N``: are these the images that the run's generator draws?

Some shards are drawn again and compared by their pixels: an audit of repeatability, and of what the store has kept.
"""

from __future__ import annotations

import random
import re
import secrets
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from adainf.errors import BadInput, StageFailed
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import fitted, generated
from adainf.pipeline.progress import Reporter
from adainf.recipe import Diffusion, Gan, Generate
from adainf.runtime.determinism import prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.writer import pixel_facts
from adainf.stages.generate import open_fitted

_FITTED: TypeAdapter[Diffusion | Gan] = TypeAdapter(Annotated[Diffusion | Gan, Field(discriminator="kind")])


def regenerate(uri: str, shards: int, seed: int | None, reporter: Reporter) -> None:
    """Draw so many shards of the set `RUN/generated` again, chosen by `seed` (None: any), as the manifests say they were made.

    Of several sources it is `RUN/generated/NAME`. No recipe is needed. Raises `StageFailed` naming the shards whose pixels
    differ; `BadInput` for a set of another kind.
    """
    named = re.fullmatch(r"(?:(.*)/)?generated(?:/([^/]+))?", uri.rstrip("/"))
    run, source = (Run(named[1] or "."), named[2] or "") if named else (Run(uri), "")
    images, generator = generated(source), fitted(source)
    made = run.find(images) if named else None
    model = run.find(generator) if made else None
    if made is None or model is None or not model.outputs:  # an external generator leaves none
        raise BadInput(
            f"{uri} was not drawn by a generator of its run, so nothing can be drawn again; give RUN/{images} of a run that "
            "has fitted one, or leave out --regenerate"
        )
    if made.request.inputs[generator] != model.digest:
        raise BadInput(f"{run.locate(generator)} is not the generator that drew {uri}; restore it, or run `adainf generate`")
    try:
        config = _FITTED.validate_python(model.request.settings | {"sampler": made.request.settings["sampler"]})
        settings = Generate.model_validate(made.request.settings["generate"])
    except ValidationError:
        raise BadInput(f"{uri} was made by {made.made_by}, whose settings this version does not know; use that one") from None
    folder = ShardFolder.of(run, images, made)
    split = folder.split("train")
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    chosen = sorted(random.Random(seed).sample(range(len(split)), min(shards, len(split))))
    reporter.info(f"verify: drawing {len(chosen)} of {len(split)} shards again (--seed {seed})")
    prepare(None)
    draw = open_fitted(run, config, model, settings.seed, folder.shards.image_size)
    differing = []
    with reporter.track("regenerate", len(chosen)) as track:
        for number in chosen:
            first = number * settings.shard_images
            index = folder.index(split.shard(number))
            if pixel_facts(draw(range(first, first + len(index.keys)))) != index.pixels:
                differing.append(folder.locate(index.tar.key))
            track.advance()
    if differing:
        raise StageFailed(
            f"drawn again, {len(differing)} of {len(chosen)} shards have other pixels: {', '.join(differing)}; on another kind "
            "of device or with another version of torch that is to be expected, else the shards or the generator were changed"
        )
    reporter.info(f"verify: {len(chosen)} shards drawn again are the same, pixel by pixel")
