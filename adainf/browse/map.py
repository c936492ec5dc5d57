"""The map of a run's images: which of them lie in a part of it, and which real one is nearest to a generated one.

Each source of generated images has a map of its own, which has real images beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from adainf.browse.catalog import Catalog, Place, places, row_of
from adainf.browse.quality import measurement, quality_artifact
from adainf.browse.sources import Source
from adainf.errors import BadInput
from adainf.pipeline.artifacts import Manifest
from adainf.quality.embedding import MAP, EmbeddingMap
from adainf.shards.loader.permutation import Integers

REAL = "real/train"
MOST_BYTES = 64 * 2**20
MOST_CORNERS = 128

ByRealism = Literal["realistic", "unrealistic"]
"""Generated images of the map, the most or the least realistic first."""


class MapReader:
    """Reads a map once, and again where its images have been measured anew. Safe among threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._held: dict[str, tuple[str, EmbeddingMap]] = {}

    def sources(self) -> tuple[str, ...]:
        """The names of those whose images are in a map; none where there is no map."""
        mapped = self._mapped()
        return (REAL, *mapped) if mapped else ()

    def _mapped(self) -> list[str]:
        """The sources of generated images that have a map."""
        return [name for name in self._catalog.sources if self._manifest(name)]

    def read(self, of: str | None) -> EmbeddingMap:
        """That of this source of generated images, of the first where None. Raises as `find` does, and where there is none."""
        found = self.find(of or next(iter(self._mapped()), ""))
        if found is None:
            raise BadInput(f"{self._catalog.uri} has no map: run `adainf measure RECIPE` on it")
        return found

    def find(self, of: str) -> EmbeddingMap | None:
        """Raises `BadInput` where it is damaged, and where it is of other images than the run has now."""
        run, manifest, artifact = self._catalog.run, self._manifest(of), quality_artifact(of)
        if manifest is None:
            return None
        output, where = manifest.output(MAP), run.locate(f"{artifact}/{MAP}")
        real, generated = (self._catalog.source(name) for name in (REAL, of))
        for source in (real, generated):
            if manifest.request.inputs.get(source.name.removesuffix("/train")) != source.digest:
                raise BadInput(f"{where} is a map of other images than those of {source.name}; measure them again")
        held = self._held.get(of)
        if held is None or held[0] != output.sha256:
            try:
                if output.size_bytes > MOST_BYTES:
                    raise ValueError(f"{output.size_bytes:,} bytes are too many for a map")
                found = EmbeddingMap.from_bytes(run.read(output), sum(generated.known), sum(real.known))
            except ValueError as error:
                raise BadInput(f"{where}: {error}; delete {artifact}/ and run `adainf measure` again") from None
            held = self._held[of] = output.sha256, found
        return held[1]

    def _manifest(self, of: str) -> Manifest | None:
        """That of the measurement of a source, where it has a map."""
        manifest = measurement(self._catalog.run, of) if self._catalog.is_run else None
        key = f"{quality_artifact(of)}/{MAP}"
        return manifest if manifest and any(output.key == key for output in manifest.outputs) else None

    def nearest(self, source: Source, place: Place) -> dict[str, Any]:
        """What the map says of a sample, ready for JSON: nothing where it is not in it. Raises as `find` does."""
        embedding = self.find(source.name)
        if embedding is None:
            return {}
        found = np.flatnonzero(embedding.generated_rows == row_of(source, place))[:1]
        if not len(found):
            return {}
        (near,) = places(self._catalog.source(REAL), embedding.nearest_rows[found].astype(np.int64))
        (realism,), (distance,) = embedding.realism[found].tolist(), embedding.nearest_distances[found].tolist()
        return {"realism": realism, "nearest": {"source": REAL, **near._asdict(), "distance": distance}}

    def chosen(self, source: Source, query: Mapping[str, str]) -> Integers | None:
        """The images that the viewer has chosen by the map, by their numbers in the source; None is all images.

        ``map``: `all` of it, or the corners of a part of it, "x_y_x_y_…". ``quality``: see `ByRealism`. ``of``: of real images,
        the source whose map is meant. Raises `BadInput`.
        """
        part, order = query.get("map"), query.get("quality")
        by_realism = order in get_args(ByRealism)
        if not part and not by_realism:
            return None
        if not quality_artifact(source.name) and (by_realism or source.name != REAL):
            raise BadInput(f"the map says nothing of that about {source.name}")
        embedding = self.read(query.get("of") if source.name == REAL else source.name)
        rows, points_n2 = embedding.generated_rows, embedding.generated_xy
        if source.name == REAL:
            rows, points_n2 = embedding.real_rows, embedding.real_xy
        chosen = np.arange(len(rows))
        if by_realism:
            chosen = np.argsort(embedding.realism * (1 if order == "unrealistic" else -1), kind="stable")
        if part and part != "all":
            chosen = chosen[inside(points_n2, _corners(part))[chosen]]
        return rows[chosen].astype(np.int64)


def inside(points_n2: NDArray[Any], corners_m2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """n: which points lie in the polygon, by how many of its sides a ray from the point crosses. `map.js` counts so, too."""
    x, y = points_n2.astype(np.float64).T
    found = np.zeros(len(x), bool)
    for (x0, y0), (x1, y1) in zip(corners_m2, np.roll(corners_m2, -1, 0), strict=True):
        if y0 != y1:
            found ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0)))
    return found


def _corners(text: str) -> NDArray[np.float64]:
    try:
        values = np.array([float(part) for part in text.split("_", 2 * MOST_CORNERS)])
    except ValueError:
        values = np.empty(0)
    if not (len(values) >= 6 and len(values) % 2 == 0 and np.isfinite(values).all() and np.abs(values).max() < 1e30):
        raise BadInput(f"map is {text[:40]!r}, expected all, or x_y of 3 to {MOST_CORNERS} corners")
    return values.reshape(-1, 2)
