"""A GAN through the stages: fitted, described, drawn; and refused where it does not fit the real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest


def prepared(folder: Path, **settings: object) -> tuple[Recipe, Run]:
    np.savez(folder / "real.npz", image=np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8))
    gan = {"kind": "gan", "steps": 3, "batch": 8, "channels": [8, 16], "latent": 4, "sampler": {"batch": 16}, **settings}
    recipe = Recipe.model_validate(
        {
            "name": "test",
            "real": {"kind": "npz", "path": str(folder / "real.npz")},
            "generator": gan,
            "generate": {"images": 50, "shard_images": 20},
        }
    )
    run = Run(str(folder / "run"))
    ingest(recipe, run, Reporter())
    return recipe, run


def test_fit_and_generate(tmp_path: Path) -> None:
    recipe, run = prepared(tmp_path)
    (fitted,) = fit(recipe, run, Reporter())
    real = run.find("real")
    assert real is not None
    assert (fitted.content["kind"], fitted.content["trained_on"], fitted.content["images_seen"]) == ("gan", real.digest, 24)
    (generated,) = generate(recipe, run, Reporter())
    assert generated.content["origin"] == {"kind": "gan", "generator": fitted.digest, "trained_on": real.digest}
    images = read_split(ShardFolder.of(run, "generated", generated), "train").images
    assert images.shape == (50, 8, 8, 3)
    assert len(np.unique(images.reshape(50, -1), axis=0)) == 50


@pytest.mark.parametrize(("channels", "multiple"), [([8, 8, 8, 8, 8], 16), ([12], 1)])
def test_networks_that_do_not_fit_the_images_are_refused(tmp_path: Path, channels: list[int], multiple: int) -> None:
    recipe, run = prepared(tmp_path, channels=channels)
    with pytest.raises(BadInput, match=rf"generator\.channels with {len(channels)} .* multiple of {multiple} px.* are 8 x 8"):
        fit(recipe, run, Reporter())
    assert run.store.get("real/manifest.json")
    assert not [info.key for info in run.store.list("generator/")]
