"""A run with real and generated images and a map of some of them."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path as Polygon
from pydantic import JsonValue

from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import generated, measured
from adainf.pipeline.records import Manifest, Request
from adainf.quality.embedding import EmbeddingMap
from tests.shards.sets import make_set

REAL, GENERATED, MAPPED = 60, 90, 30


def make_mapped(folder: str, source: str = "", seed: int = 0) -> tuple[Run, EmbeddingMap]:
    """60 real images in shards of 25, 90 generated ones in shards of 20, 30 of each in the source's map."""
    run, draws = Run(f"{folder}/run"), np.random.default_rng(seed)
    if run.find("real") is None:
        make_set(f"{run.uri}/real", REAL, 25, seed=1)
    make_set(f"{run.uri}/{generated(source)}", GENERATED, 20, seed=seed + 2)
    embedding = EmbeddingMap(
        generated_rows=np.arange(0, GENERATED, 3, dtype=np.int32),
        generated_xy=draws.normal(0, 1, (MAPPED, 2)).astype(np.float32),
        realism=draws.uniform(0, 2, MAPPED).astype(np.float32),
        nearest_rows=draws.integers(0, REAL, MAPPED, dtype=np.int32),
        nearest_distances=draws.uniform(0, 9, MAPPED).astype(np.float32),
        real_rows=np.arange(1, REAL, 2, dtype=np.int32),
        real_xy=draws.normal(0.5, 1, (MAPPED, 2)).astype(np.float32),
    )
    put_map(run, embedding.to_bytes(), source)
    return run, embedding


def put_map(run: Run, data: bytes, source: str = "") -> None:
    """Commit the quality of a source with this map, replacing an earlier one."""
    name = measured(source)
    digests = {made: manifest.digest for made in ("real", generated(source)) if (manifest := run.find(made))}
    request = Request(stage="measure", settings={}, inputs=digests)
    content: dict[str, JsonValue] = {"shards": {"fd": {"ssl": [4, 1, 5, 2, 3]}}}
    manifest = Manifest(request=request, outputs=[run.write(f"{name}/map.npz", data)], content=content)
    run.store.put(f"{name}/manifest.json", manifest.to_json())


def inside(points: np.ndarray, region: str) -> np.ndarray:
    """Whether each point is in a region of the map, by matplotlib."""
    return Polygon(np.array(region.split("_"), float).reshape(-1, 2)).contains_points(points)
