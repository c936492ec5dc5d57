"""The map over real HTTP: its points, what is chosen by it, and what is told where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adainf.pipeline.artifacts import Run
from adainf.quality.embedding import EmbeddingMap
from tests.browse.mapped import inside, make_mapped, put_map
from tests.browse.served import Served, served
from tests.shards.sets import make_set

PART = "-1.5_-1_1.2_-1.1_0_0_1_1.5_-1_1"


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Run, EmbeddingMap]:
    return make_mapped(str(tmp_path))


def rows(server: Served, query: str, source: str = "generated", shard_images: int = 20) -> list[int]:
    """The numbers of the samples that a page has."""
    told = server.ask(f"/api/page?source={source}/train&count=100&{query}").page[0]
    assert told["complete"]
    assert told["total"] == len(told["samples"])
    return [shard_images * sample["shard"] + sample["number"] for sample in told["samples"]]


def test_points_are_given_as_they_are(mapped: tuple[Run, EmbeddingMap]) -> None:
    with served(mapped[0].uri) as server:
        answer = server.ask("/api/map")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert np.frombuffer(answer.body[:8], "<u4").tolist() == [30, 30]
        points = np.frombuffer(answer.body[8:], "<f4").reshape(2, 30, 2)
        assert np.array_equal(points, [mapped[1].real_xy, mapped[1].generated_xy])
        sources = server.ask("/api/catalog").said["sources"]
        assert [(source["name"], source["map"]) for source in sources] == [("real/train", True), ("generated/train", True)]


def test_a_part_and_an_order_choose_images(mapped: tuple[Run, EmbeddingMap]) -> None:
    run, embedding = mapped
    within = embedding.generated_rows[inside(embedding.generated_xy, PART)]
    best_first = embedding.generated_rows[np.argsort(-embedding.realism)]
    assert 5 < len(within) < 25
    with served(run.uri) as server:
        assert rows(server, "map=all") == list(range(0, 90, 3))
        assert rows(server, f"map={PART}") == within.tolist()
        assert rows(server, f"map={PART}", "real", 25) == embedding.real_rows[inside(embedding.real_xy, PART)].tolist()
        assert rows(server, "quality=realistic") == best_first.tolist()
        assert rows(server, "quality=unrealistic") == best_first[::-1].tolist()
        assert rows(server, f"map={PART}&quality=realistic") == [row for row in best_first if row in within]
        assert rows(server, f"map={PART}&shard=1") == [row for row in within if 20 <= row < 40]
        assert rows(server, "map=all&quality=top") == [*range(21, 40, 3), *range(60, 80, 3)], "shards 1 and 3"
        assert rows(server, f"map={PART}&label=3") == [row for row in within if row * 7 % 10 == 3]
        told = server.ask("/api/page?source=generated/train&map=all&first=28&count=9").page[0]
        assert [(one["shard"], one["number"]) for one in told["samples"]] == [(4, 4), (4, 7)]


def test_each_source_has_a_map_of_its_own(tmp_path: Path) -> None:
    """Would catch one source's points under another's name; of real images the address says whose map is meant."""
    (run, of_a), (_, of_b) = (make_mapped(str(tmp_path), source, seed) for source, seed in (("a", 0), ("b", 1)))
    with served(run.uri) as server:
        sources = server.ask("/api/catalog").said["sources"]
        assert {source["name"]: source["map"] for source in sources} == dict.fromkeys(
            ("real/train", "generated/a/train", "generated/b/train"), True
        )
        for name, embedding in (("generated/a", of_a), ("generated/b", of_b)):
            points = np.frombuffer(server.ask(f"/api/map?of={name}/train").body[8:], "<f4").reshape(2, 30, 2)
            assert np.array_equal(points, [embedding.real_xy, embedding.generated_xy])
            assert rows(server, f"map={PART}", name) == embedding.generated_rows[inside(embedding.generated_xy, PART)].tolist()
            real = embedding.real_rows[inside(embedding.real_xy, PART)].tolist()
            assert rows(server, f"map={PART}&of={name}/train", "real", 25) == real
            said = server.ask(f"/api/sample?source={name}/train&shard=2&number=5").said
            assert said["realism"] == float(embedding.realism[15])
        assert "has no map" in server.ask("/api/map?of=generated/c/train").said["problem"]


def test_a_generated_image_has_its_nearest_real_one(mapped: tuple[Run, EmbeddingMap]) -> None:
    run, embedding = mapped
    with served(run.uri) as server:
        said = server.ask("/api/sample?source=generated/train&shard=2&number=5").said  # 45, the fifteenth of the map
        shard, number = divmod(int(embedding.nearest_rows[15]), 25)
        near = {"source": "real/train", "shard": shard, "number": number, "distance": float(embedding.nearest_distances[15])}
        assert said["nearest"] == near
        assert said["realism"] == float(embedding.realism[15])
        for other in ("source=generated/train&shard=2&number=6", "source=real/train&shard=1"):
            assert "nearest" not in server.ask(f"/api/sample?{other}").said


def test_parts_that_are_none_are_refused(mapped: tuple[Run, EmbeddingMap]) -> None:
    with served(mapped[0].uri) as server:
        for part in ("x", "1_2", "1_2_3_4_5", "nan_0_1_1_2_2", "inf_0_1_1_2_2", "1e99_0_1_1_2_2", "_".join(["1"] * 400), "__"):
            answer = server.ask(f"/api/page?source=generated/train&map={part}")
            assert answer.status == 404, part
            assert "expected all, or x_y of 3 to 128 corners" in answer.said["problem"]
        answer = server.ask("/api/page?source=real/train&quality=realistic")
        assert "the map says nothing of that about real/train" in answer.said["problem"]


def test_a_damaged_map_is_told_and_the_rest_goes_on(mapped: tuple[Run, EmbeddingMap]) -> None:
    run, embedding = mapped
    beyond = embedding._replace(nearest_rows=embedding.nearest_rows + np.int32(60)).to_bytes()
    with served(run.uri) as server:

        def told(match: str) -> None:
            for path in ("map", "page?source=generated/train&map=all"):
                answer = server.ask(f"/api/{path}")
                assert (answer.status, match in answer.said["problem"]) == (404, True), answer.said
            said = server.ask("/api/sample?source=generated/train&number=3").said
            assert match in said["map_problem"]
            assert (said["format"], said["quality"][:18]) == ("PNG", "Fréchet distance 4")
            assert len(rows(server, "")) == 90

        put_map(run, beyond)
        told("map.npz: nearest_rows has indices beyond the 60 images; delete quality/")
        put_map(run, b"PK" + bytes(90))
        told("map.npz: not a readable map of images")
        run.store.put("quality/map.npz", embedding.to_bytes())
        told("does not match its manifest")
        put_map(run, embedding.to_bytes())
        assert server.ask("/api/map").status == 200, "measured anew, it is read anew"
        run.store.put("quality/manifest.json", b"{")
        assert [source["map"] for source in server.ask("/api/catalog").said["sources"]] == [False, False]
        assert len(rows(server, "")) == 90, "images are seen without their quality"
        put_map(run, embedding.to_bytes())
        run.store.delete("generated/manifest.json")
        make_set(f"{run.uri}/generated", 80, 20, seed=3)
        server.ask("/api/catalog")
        assert "a map of other images than those of generated/train" in server.ask("/api/map").said["problem"]


def test_without_a_map_nothing_is_said_of_one(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/run/real", 4, 2)
    with served(f"{tmp_path}/run") as server:
        assert [source["map"] for source in server.ask("/api/catalog").said["sources"]] == [False]
        assert "run `adainf measure RECIPE`" in server.ask("/api/map").said["problem"]
        assert "map_problem" not in server.ask("/api/sample").said
    with served(made.uri) as server:
        assert server.ask("/api/map").status == 404
