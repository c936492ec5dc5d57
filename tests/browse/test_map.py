"""The map over real HTTP: its points, selection by it, and the errors for a corrupt map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adainf.pipeline.artifacts import Run
from adainf.quality.embedding import EmbeddingMap
from tests.browse.mapped import inside, make_mapped, put_map
from tests.browse.served import Served, served
from tests.shards.sets import make_set

REGION = "-1.5_-1_1.2_-1.1_0_0_1_1.5_-1_1"


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Run, EmbeddingMap]:
    return make_mapped(str(tmp_path))


def rows(server: Served, query: str, source: str = "generated", shard_images: int = 20) -> list[int]:
    """The row numbers of the samples of a page."""
    described = server.request(f"/api/page?source={source}/train&count=100&{query}").page[0]
    assert described["complete"]
    assert described["total"] == len(described["samples"])
    return [shard_images * sample["shard"] + sample["number"] for sample in described["samples"]]


def test_points_are_returned_unchanged(mapped: tuple[Run, EmbeddingMap]) -> None:
    with served(mapped[0].uri) as server:
        response = server.request("/api/map")
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert np.frombuffer(response.body[:8], "<u4").tolist() == [30, 30]
        points = np.frombuffer(response.body[8:], "<f4").reshape(2, 30, 2)
        assert np.array_equal(points, [mapped[1].real_xy, mapped[1].generated_xy])
        sources = server.request("/api/catalog").json["sources"]
        assert [(source["name"], source["map"]) for source in sources] == [("real/train", True), ("generated/train", True)]


def test_a_region_and_an_order_select_images(mapped: tuple[Run, EmbeddingMap]) -> None:
    run, embedding = mapped
    within = embedding.generated_rows[inside(embedding.generated_xy, REGION)]
    best_first = embedding.generated_rows[np.argsort(-embedding.realism)]
    assert 5 < len(within) < 25
    with served(run.uri) as server:
        assert rows(server, "map=all") == list(range(0, 90, 3))
        assert rows(server, f"map={REGION}") == within.tolist()
        assert rows(server, f"map={REGION}", "real", 25) == embedding.real_rows[inside(embedding.real_xy, REGION)].tolist()
        assert rows(server, "quality=realistic") == best_first.tolist()
        assert rows(server, "quality=unrealistic") == best_first[::-1].tolist()
        assert rows(server, f"map={REGION}&quality=realistic") == [row for row in best_first if row in within]
        assert rows(server, f"map={REGION}&shard=1") == [row for row in within if 20 <= row < 40]
        assert rows(server, "map=all&quality=top") == [*range(21, 40, 3), *range(60, 80, 3)], "shards 1 and 3"
        assert rows(server, f"map={REGION}&label=3") == [row for row in within if row * 7 % 10 == 3]
        described = server.request("/api/page?source=generated/train&map=all&first=28&count=9").page[0]
        assert [(one["shard"], one["number"]) for one in described["samples"]] == [(4, 4), (4, 7)]


def test_each_source_has_its_own_map(tmp_path: Path) -> None:
    """Would catch points of one source under another's name; for real images the query names the map."""
    (run, of_a), (_, of_b) = (make_mapped(str(tmp_path), source, seed) for source, seed in (("a", 0), ("b", 1)))
    with served(run.uri) as server:
        sources = server.request("/api/catalog").json["sources"]
        assert {source["name"]: source["map"] for source in sources} == dict.fromkeys(
            ("real/train", "generated/a/train", "generated/b/train"), True
        )
        for name, embedding in (("generated/a", of_a), ("generated/b", of_b)):
            points = np.frombuffer(server.request(f"/api/map?of={name}/train").body[8:], "<f4").reshape(2, 30, 2)
            assert np.array_equal(points, [embedding.real_xy, embedding.generated_xy])
            assert (
                rows(server, f"map={REGION}", name) == embedding.generated_rows[inside(embedding.generated_xy, REGION)].tolist()
            )
            real = embedding.real_rows[inside(embedding.real_xy, REGION)].tolist()
            assert rows(server, f"map={REGION}&of={name}/train", "real", 25) == real
            sample = server.request(f"/api/sample?source={name}/train&shard=2&number=5").json
            assert sample["realism"] == float(embedding.realism[15])
        assert "has no map" in server.request("/api/map?of=generated/c/train").json["error"]


def test_a_generated_image_has_its_nearest_real_one(mapped: tuple[Run, EmbeddingMap]) -> None:
    run, embedding = mapped
    with served(run.uri) as server:
        sample = server.request("/api/sample?source=generated/train&shard=2&number=5").json  # 45, the fifteenth of the map
        shard, number = divmod(int(embedding.nearest_rows[15]), 25)
        near = {"source": "real/train", "shard": shard, "number": number, "distance": float(embedding.nearest_distances[15])}
        assert sample["nearest"] == near
        assert sample["realism"] == float(embedding.realism[15])
        for other in ("source=generated/train&shard=2&number=6", "source=real/train&shard=1"):
            assert "nearest" not in server.request(f"/api/sample?{other}").json


def test_invalid_regions_are_refused(mapped: tuple[Run, EmbeddingMap]) -> None:
    with served(mapped[0].uri) as server:
        for region in (
            "x",
            "1_2",
            "1_2_3_4_5",
            "nan_0_1_1_2_2",
            "inf_0_1_1_2_2",
            "1e99_0_1_1_2_2",
            "_".join(["1"] * 400),
            "__",
        ):
            response = server.request(f"/api/page?source=generated/train&map={region}")
            assert response.status == 404, region
            assert "expected all, or x_y of 3 to 128 corners" in response.json["error"]
        response = server.request("/api/page?source=real/train&quality=realistic")
        assert "real/train is not selectable by the map" in response.json["error"]


def test_a_corrupt_map_is_reported_and_the_rest_is_shown(mapped: tuple[Run, EmbeddingMap]) -> None:
    run, embedding = mapped
    beyond = embedding._replace(nearest_rows=embedding.nearest_rows + np.int32(60)).to_bytes()
    with served(run.uri) as server:

        def described(match: str) -> None:
            for path in ("map", "page?source=generated/train&map=all"):
                response = server.request(f"/api/{path}")
                assert (response.status, match in response.json["error"]) == (404, True), response.json
            sample = server.request("/api/sample?source=generated/train&number=3").json
            assert match in sample["map_error"]
            assert (sample["format"], sample["quality"][:18]) == ("PNG", "Fréchet distance 4")
            assert len(rows(server, "")) == 90

        put_map(run, beyond)
        described("map.npz: nearest_rows has indices beyond the 60 images; delete quality/")
        put_map(run, b"PK" + bytes(90))
        described("map.npz: not a readable map of images")
        run.store.put("quality/map.npz", embedding.to_bytes())
        described("does not match its manifest")
        put_map(run, embedding.to_bytes())
        assert server.request("/api/map").status == 200, "a new measurement is read"
        run.store.put("quality/manifest.json", b"{")
        assert [source["map"] for source in server.request("/api/catalog").json["sources"]] == [False, False]
        assert len(rows(server, "")) == 90, "images are shown without their quality"
        put_map(run, embedding.to_bytes())
        run.store.delete("generated/manifest.json")
        make_set(f"{run.uri}/generated", 80, 20, seed=3)
        server.request("/api/catalog")
        assert "does not match the images of generated/train" in server.request("/api/map").json["error"]


def test_without_a_map_its_fields_are_absent(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/run/real", 4, 2)
    with served(f"{tmp_path}/run") as server:
        assert [source["map"] for source in server.request("/api/catalog").json["sources"]] == [False]
        assert "run `adainf measure RECIPE`" in server.request("/api/map").json["error"]
        assert "map_error" not in server.request("/api/sample").json
    with served(made.uri) as server:
        assert server.request("/api/map").status == 404
