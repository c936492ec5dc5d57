"""The server over real HTTP: what it gives, and all that it must refuse while the rest of the page keeps working."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adainf.browse.catalog import Catalog, Place
from adainf.browse.pictures import SMALL_BYTES, THUMBNAIL_PX, full, header, thumbnail
from adainf.browse.reading import Problem, Reader
from adainf.errors import BAD_INPUT, AdaInfError, BadInput
from adainf.pipeline.artifacts import sha256
from adainf.shards.format.manifest import ShardIndex
from adainf.shards.format.png import decode_image, encode_stored_png
from tests.browse.hostile import entry, huge_png, png, tar
from tests.browse.served import served
from tests.shards.sets import make_set
from tests.tiny import forge

TOKEN = "a-token-of-this-test"
SCRIPT = "<img src=x onerror=alert(1)>"


def test_pages_and_images_are_the_pixels_that_lie_on_s3(s3_env: str) -> None:
    made = make_set(f"{s3_env}/real", 50, 20, size_px=8)
    with served(s3_env) as server:
        (source,) = server.ask("/api/catalog").said["sources"]
        assert (source["name"], source["samples"], source["shards"]) == ("real/train", 50, 3)
        told, pictures = server.ask("/api/page?source=real/train&first=18&count=30").page
        assert [20 * one["shard"] + one["number"] for one in told["samples"]] == list(range(18, 48))
        assert np.array_equal(np.stack([decode_image(picture) for picture in pictures if picture]), made.images[18:48])
        said = server.ask("/api/sample?source=real/train&shard=1&number=0").said
        assert (said["key"], said["label"], said["previous"], said["next"]) == ("000020", made.labels[20], [0, 19], [1, 1])
        assert said["uri"] == f"{s3_env}/real/train-000001.tar"
        image = server.ask("/api/image?source=real/train&shard=1&number=0").body
        assert np.array_equal(decode_image(image), made.images[20])
        everything = server.ask("/api/catalog").body + server.ask("/api/run").body
        assert not any(os.environ[name].encode() in everything for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def test_every_answer_is_locked_down_and_nothing_can_be_changed(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri) as server:
        for path in ("/", "/app.js", "/api/catalog", "/api/page", "/nothing", "/api/image?shard=9"):
            headers = server.ask(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none';")
            assert "unsafe" not in policy
            assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                assert server.ask(path, method).status == 405
        head = server.ask("/api/catalog", "HEAD")
        assert (head.status, head.body) == (200, b"")
        page = server.ask("/").body.decode()
        assert "http" not in page
        assert "<script>" not in page
        assert " on" not in page.split("<body>")[1].replace(" on one", "").replace(" or on", "")


def test_with_a_token_nothing_is_given_without_it(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri, TOKEN) as server:
        for path in ("/", "/app.js", "/api/catalog", "/?token=", "/?token=another", "/api/page?token=%00"):
            assert server.ask(path).status == 401
            assert server.ask(path, cookie="adainf=another").status == 401
        answer = server.ask(f"/?token={TOKEN}")
        cookie = answer.headers["set-cookie"]
        assert (answer.status, answer.headers["location"]) == (303, "/")
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert server.ask("/api/catalog", cookie=cookie.split(";")[0], host="pod.example:8080").status == 200


def test_without_a_token_only_this_machine_is_answered(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri) as server:
        for host in ("localhost", "127.0.0.1:80", "[::1]:9"):
            assert server.ask("/api/catalog", host=host).status == 200
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
            assert server.ask("/api/catalog", host=host).status == 421


LEADING_OUT = ("/../secret", "/%2e%2e/secret", "/static/../../secret", "//etc/passwd", "/app.js/../../secret", "/..%5csecret")
NO_SAMPLE = (
    "source=../secret",
    "source=%2e%2e",
    "shard=-1",
    "shard=99",
    "number=2",
    "shard=1e3",
    f"number={'9' * 99}",
    "shard=%C2%B2",
)


def test_paths_and_numbers_that_lead_outside_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with served(make_set(f"{tmp_path}/set", 4, 2).uri) as server:
        for path in LEADING_OUT:
            answer = server.ask(path)
            assert answer.status == 404
            assert b"secret" not in answer.body
        for query in NO_SAMPLE:
            answer = server.ask(f"/api/sample?{query}")
            assert answer.status == 404, query
            assert answer.said["problem"]
        assert server.ask("/api/page?first=999999999999&count=999999999999").page[0]["samples"] == []
        assert server.ask("/api/catalog").status == 200


@pytest.fixture
def bad_tars(tmp_path: Path) -> Path:
    good = {f"{n}.png": png(n) for n in range(3)}
    whole = tar(good)
    bad = {
        "b-device.tar": tar(good, entry("dev.png", tarfile.CHRTYPE)),
        "c-hard-link.tar": tar(good, entry("l.png", tarfile.LNKTYPE, "0.png")),
        "d-symlink.tar": tar(good, entry("s.png", tarfile.SYMTYPE, "/etc/passwd")),
        "e-cut.tar": whole[:1300],
        "f-empty.tar": b"",
        "g-noise.tar": os.urandom(4096),
        "h-size-bomb.tar": whole[:124] + b"77777777777\0" + whole[136:],
    }
    hostile = {f"{SCRIPT}.png": png(1), "../../up.png": png(2), "huge.png": huge_png(), "no.png": b"no image", "t.png": png(3)}
    hostile["t.txt"] = SCRIPT.encode()
    for name, data in {"a-good.tar": whole, **bad, "z-hostile.tar": tar(hostile)}.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_bad_tars_are_told_one_by_one_and_good_ones_stay(bad_tars: Path) -> None:
    with served(str(bad_tars)) as server:
        names = sorted(path.name for path in bad_tars.iterdir())
        assert len(server.ask("/api/page?shard=0").page[0]["samples"]) == 3
        for shard, name in enumerate(names[1:-1], 1):
            answer = server.ask(f"/api/page?shard={shard}")
            assert answer.status == 404, name
            assert name in answer.said["problem"]
        told, pictures = server.ask(f"/api/page?shard={len(names) - 1}").page
        samples = {one.get("key"): one for one in told["samples"]}
        shown = {key for key, picture in zip(samples, pictures, strict=True) if picture}
        assert samples["huge"]["problem"] == "it declares 60,000 × 60,000 px, more than an image has"
        assert "not an image" in samples["no"]["problem"]
        assert shown == {"<img src=x onerror=alert(1)>", "../../up", "t"}
        number = list(samples).index("huge")
        assert server.ask(f"/api/image?shard={len(names) - 1}&number={number}").status == 404
        assert server.ask("/api/page?shard=0").status == 200


def test_an_index_that_leaves_its_tar_or_its_prefix_is_refused(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/set", 4, 2)
    at, index_at = made.path / "manifest.json", made.path / "train-000000.index.json"
    manifest = at.read_bytes()
    (tmp_path / "outside.tar").write_bytes((made.path / "train-000000.tar").read_bytes())
    keys = ["../outside.tar", "train-000001.tar"]
    forge(at, lambda body: body["content"]["splits"]["train"].update(tar_keys=keys))
    with pytest.raises(BadInput, match="outside"):
        Catalog(made.uri)
    index = ShardIndex.model_validate_json(index_at.read_text())
    moved = index.model_copy(update={"image_offsets": [10**9, 0]}).to_json()
    index_at.write_bytes(moved)
    at.write_bytes(manifest)
    sizes, sums = [len(moved)] * 2, [sha256(moved)] * 2
    forge(at, lambda body: body["content"]["splits"]["train"].update(index_sizes_bytes=sizes, index_sha256s=sums))
    with pytest.raises(BadInput, match="points outside"):
        Catalog(made.uri).source(None).columns(0)


def test_large_and_unusual_images_become_small_ones() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    stored = encode_stored_png(noise)
    assert len(stored) > SMALL_BYTES
    picture = thumbnail(stored)
    kind, width, height = header(picture.data)
    assert (kind, width, height) == ("PNG", THUMBNAIL_PX * 3 // 4, THUMBNAIL_PX)
    assert full(stored).data == stored
    ppm = b"P6 2 1 255\n" + bytes([255, 0, 0, 0, 0, 255])
    assert decode_image(full(ppm).data).tolist() == [[[255, 0, 0], [0, 0, 255]]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_make_a_picture_of_anything_but_an_image(data: st.DataObject) -> None:
    beginnings = [png(7), huge_png(100_000), b"GIF89a" + bytes(20), b"\xff\xd8\xff\xe0" + bytes(30), b"\x93NUMPY\1\0"]
    image = bytearray(data.draw(st.sampled_from(beginnings)))
    for at in data.draw(st.lists(st.integers(0, len(image) - 1), max_size=6)):
        image[at] = data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(0, len(image)))])
    for show in (thumbnail, full):
        try:
            picture = show(cut)
        except ValueError:
            continue
        assert picture.media_type in ("image/png", "image/jpeg", "image/webp", "image/gif")
        assert header(picture.data).width_px * header(picture.data).height_px <= 4096 * 4096


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_tar_or_sidecar_is_told_and_never_shown_as_another_image(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes are turned or lost, each picture that is shown is the one that was written under its number."""
    made = make_set(f"{tmp_path_factory.mktemp('fuzz')}/set", 6, 3)
    name = data.draw(st.sampled_from(["train-000000.tar", "train-000000.index.json", "manifest.json"]))
    path = made.path / name
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged)
    try:
        source = Catalog(made.uri).source(None)
        images = Reader().read(source, [Place(0, n) for n in range(3)])
    except AdaInfError:
        return
    for number, image in enumerate(images):
        assert isinstance(image, Problem) or np.array_equal(decode_image(image), made.images[number])


def test_beyond_loopback_a_token_is_made_and_asked_for(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/set", 4, 2)
    command = [sys.executable, "-m", "adainf", "shards", "serve", made.uri, "--port", "0", "--host"]
    with subprocess.Popen([*command, "0.0.0.0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
    assert "?token=" in line
    assert len(line.split("?token=")[1].split()[0]) >= 32
    environment = {**os.environ, "ADAINF_BROWSE_TOKEN": "abc"}
    short = subprocess.run([*command, "127.0.0.1"], env=environment, capture_output=True, check=False)
    assert short.returncode == BAD_INPUT
