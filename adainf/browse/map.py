"""The 2-D embedding map of a run's images: selection of the images within a region, and nearest real neighbours.

Each source of generated images has its own map, which also contains real images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from adainf.browse.catalog import Catalog, SampleRef, row_of, samples_at
from adainf.browse.quality import measurement, quality_artifact
from adainf.browse.sources import BrowseSource
from adainf.errors import BadInput
from adainf.pipeline.records import Manifest
from adainf.quality.embedding import MAP, EmbeddingMap
from adainf.shards.loader.permutation import Integers

REAL = "real/train"
MAX_BYTES = 64 * 2**20
MAX_CORNERS = 128

ByRealism = Literal["realistic", "unrealistic"]
"""Order of the generated images of the map: most or least realistic first."""


class MapReader:
    """Reads and caches the maps; reads a map again after a new measurement. Thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._cache: dict[str, tuple[str, EmbeddingMap]] = {}

    def sources(self) -> tuple[str, ...]:
        """Names of the sources whose images are in a map; empty without a map."""
        generated = self._generated_with_map()
        return (REAL, *generated) if generated else ()

    def _generated_with_map(self) -> list[str]:
        """Names of the sources of generated images that have a map."""
        return [name for name in self._catalog.sources if self._manifest(name)]

    def read(self, of: str | None) -> EmbeddingMap:
        """The map of a source of generated images (None: the first). Raises as `find` does, and if there is no map."""
        found = self.find(of or next(iter(self._generated_with_map()), ""))
        if found is None:
            raise BadInput(f"{self._catalog.uri} has no map; run `adainf measure RECIPE`")
        return found

    def find(self, of: str) -> EmbeddingMap | None:
        """The map of a source, or None. Raises `BadInput` for a corrupt map, and for a map of images that were replaced."""
        run, manifest, artifact = self._catalog.run, self._manifest(of), quality_artifact(of)
        if manifest is None:
            return None
        output, where = manifest.output(MAP), run.locate(f"{artifact}/{MAP}")
        real, generated = (self._catalog.source(name) for name in (REAL, of))
        for source in (real, generated):
            if manifest.request.inputs.get(source.name.removesuffix("/train")) != source.digest:
                raise BadInput(f"{where} does not match the images of {source.name}; run `adainf measure` again")
        cached = self._cache.get(of)
        if cached is None or cached[0] != output.sha256:
            try:
                if output.size_bytes > MAX_BYTES:
                    raise ValueError(f"the map is too large ({output.size_bytes:,} bytes)")
                found = EmbeddingMap.from_bytes(run.read(output), sum(generated.known), sum(real.known))
            except ValueError as error:
                raise BadInput(f"{where}: {error}; delete {artifact}/ and run `adainf measure` again") from None
            cached = self._cache[of] = output.sha256, found
        return cached[1]

    def _manifest(self, of: str) -> Manifest | None:
        """The quality manifest of a source, if it lists a map."""
        manifest = measurement(self._catalog.run, of) if self._catalog.is_run else None
        key = f"{quality_artifact(of)}/{MAP}"
        return manifest if manifest and any(output.key == key for output in manifest.outputs) else None

    def nearest(self, source: BrowseSource, sample: SampleRef) -> dict[str, Any]:
        """Realism and nearest real image of a sample, for JSON; empty if the map does not contain it. Raises as `find` does."""
        embedding = self.find(source.name)
        if embedding is None:
            return {}
        found = np.flatnonzero(embedding.generated_rows == row_of(source, sample))[:1]
        if not len(found):
            return {}
        (near,) = samples_at(self._catalog.source(REAL), embedding.nearest_rows[found].astype(np.int64))
        (realism,), (distance,) = embedding.realism[found].tolist(), embedding.nearest_distances[found].tolist()
        return {"realism": realism, "nearest": {"source": REAL, **near._asdict(), "distance": distance}}

    def select(self, source: BrowseSource, query: Mapping[str, str]) -> Integers | None:
        """The row numbers of the images that a query selects by the map; None selects all images of the source.

        ``map``: `all`, or the corners of a polygon, "x_y_x_y_…". ``quality``: see `ByRealism`. ``of``: for real images, the
        source whose map applies. Raises `BadInput`.
        """
        region, order = query.get("map"), query.get("quality")
        by_realism = order in get_args(ByRealism)
        if not region and not by_realism:
            return None
        if not quality_artifact(source.name) and (by_realism or source.name != REAL):
            raise BadInput(f"{source.name} is not selectable by the map; choose another source or remove map and quality")
        embedding = self.read(query.get("of") if source.name == REAL else source.name)
        rows, points_n2 = embedding.generated_rows, embedding.generated_xy
        if source.name == REAL:
            rows, points_n2 = embedding.real_rows, embedding.real_xy
        selected = np.arange(len(rows))
        if by_realism:
            selected = np.argsort(embedding.realism * (1 if order == "unrealistic" else -1), kind="stable")
        if region and region != "all":
            selected = selected[in_polygon(points_n2, _parse_corners(region))[selected]]
        return rows[selected].astype(np.int64)


def in_polygon(points_n2: NDArray[Any], corners_m2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """n: whether each point is in the polygon, by ray casting; equals `inPolygon` in map.js."""
    x, y = points_n2.astype(np.float64).T
    found = np.zeros(len(x), bool)
    for (x0, y0), (x1, y1) in zip(corners_m2, np.roll(corners_m2, -1, 0), strict=True):
        if y0 != y1:
            found ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0)))
    return found


def _parse_corners(text: str) -> NDArray[np.float64]:
    try:
        values = np.array([float(part) for part in text.split("_", 2 * MAX_CORNERS)])
    except ValueError:
        values = np.empty(0)
    if not (len(values) >= 6 and len(values) % 2 == 0 and np.isfinite(values).all() and np.abs(values).max() < 1e30):
        raise BadInput(f"invalid map {text[:40]!r}: expected all, or x_y of 3 to {MAX_CORNERS} corners")
    return values.reshape(-1, 2)
