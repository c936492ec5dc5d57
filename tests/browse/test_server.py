"""The server over real HTTP: its responses, and what it must reject while the rest keeps working."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adainf.browse.catalog import Catalog, SampleRef
from adainf.browse.images import SMALL_BYTES, THUMBNAIL_PX, full_size, read_header, thumbnail
from adainf.browse.reader import Reader, Unreadable
from adainf.cli import main
from adainf.errors import BAD_INPUT, AdaInfError, BadInput
from adainf.pipeline.records import sha256
from adainf.shards.format.manifest import ShardIndex
from adainf.shards.format.png import decode_image, encode_stored_png
from tests.browse.hostile import entry, huge_png, png, tar
from tests.browse.served import Served, served
from tests.shards.sets import make_set
from tests.tiny import forge

TOKEN = "a-token-of-this-test"
SCRIPT = "<img src=x onerror=alert(1)>"


def test_pages_and_images_are_the_pixels_stored_on_s3(s3_env: str) -> None:
    made = make_set(f"{s3_env}/real", 50, 20, size_px=8)
    with served(s3_env) as server:
        (source,) = server.request("/api/catalog").json["sources"]
        assert (source["name"], source["samples"], source["shards"]) == ("real/train", 50, 3)
        described, images = server.request("/api/page?source=real/train&first=18&count=30").page
        assert [20 * one["shard"] + one["number"] for one in described["samples"]] == list(range(18, 48))
        assert np.array_equal(np.stack([decode_image(image) for image in images if image]), made.images[18:48])
        sample = server.request("/api/sample?source=real/train&shard=1&number=0").json
        assert (sample["key"], sample["label"], sample["previous"], sample["next"]) == (
            "000020",
            made.labels[20],
            [0, 19],
            [1, 1],
        )
        assert sample["uri"] == f"{s3_env}/real/train-000001.tar"
        image = server.request("/api/image?source=real/train&shard=1&number=0").body
        assert np.array_equal(decode_image(image), made.images[20])
        everything = server.request("/api/catalog").body + server.request("/api/run").body
        assert not any(os.environ[name].encode() in everything for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def test_every_response_has_security_headers_and_writes_are_rejected(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri) as server:
        for path in ("/", "/app.js", "/api/catalog", "/api/page", "/nothing", "/api/image?shard=9"):
            headers = server.request(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none';")
            assert "unsafe" not in policy
            assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                assert server.request(path, method).status == 405
        head = server.request("/api/catalog", "HEAD")
        assert (head.status, head.body) == (200, b"")
        page = server.request("/").body.decode()
        assert "http" not in page
        assert "<script>" not in page
        assert " on" not in page.split("<body>")[1]


def test_with_a_token_requests_without_it_are_rejected(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri, TOKEN) as server:
        for path in ("/", "/app.js", "/api/catalog", "/?token=", "/?token=another", "/api/page?token=%00"):
            assert server.request(path).status == 401
            assert server.request(path, cookie="adainf=another").status == 401
            assert server.request(path, authorization="Bearer another").status == 401
        response = server.request(f"/?token={TOKEN}&source=set")
        cookie = response.headers["set-cookie"]
        assert (response.status, response.headers["location"]) == (303, "/?source=set")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert server.request("/api/catalog", cookie=cookie.split(";")[0], host="pod.example:8080").status == 200


def test_scripts_give_the_token_in_a_header(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri, TOKEN) as server:
        assert server.request("/api/catalog", authorization=f"Bearer {TOKEN}").status == 200
        assert server.request("/api/catalog", authorization=f"bearer {TOKEN}").status == 200
        assert server.request("/api/catalog", authorization=f"Basic {TOKEN}").status == 401
        rejected = server.request("/api/catalog")
        assert rejected.headers["www-authenticate"] == "Bearer"
        assert "token" in json.loads(rejected.body)["error"]


def test_a_browser_without_the_token_gets_a_form_for_it(tmp_path: Path) -> None:
    """Its action is the address that accepts the token, and the policy of the page lets it be sent."""
    with served(make_set(f"{tmp_path}/set", 4, 2).uri, TOKEN) as server:
        form = server.request("/", accept="text/html,application/xhtml+xml")
        assert (form.status, form.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert b'<form action="/">' in form.body
        assert "form-action 'self'" in form.headers["content-security-policy"]
        assert b"<script" not in form.body


def test_two_servers_of_a_host_keep_their_own_cookies(tmp_path: Path) -> None:
    """A browser sends all cookies of a host to each of its ports: none logs another out, and none contains a token."""
    tokens, uri = (TOKEN, f"{TOKEN}-2"), make_set(f"{tmp_path}/set", 4, 2).uri
    with served(uri, tokens[0]) as one, served(uri, tokens[1]) as other:
        cookies = [
            server.request(f"/?token={token}").headers["set-cookie"].split(";")[0]
            for server, token in zip((one, other), tokens, strict=True)
        ]
        assert len({cookie.split("=")[0] for cookie in cookies}) == 2
        assert not any(TOKEN in cookie for cookie in cookies)
        for server in (one, other):
            assert server.request("/api/catalog", cookie="; ".join(cookies)).status == 200
        assert one.request("/api/catalog", cookie=cookies[1]).status == 401


def test_without_a_token_only_loopback_hosts_are_served(tmp_path: Path) -> None:
    with served(make_set(f"{tmp_path}/set", 4, 2).uri) as server:
        for host in ("localhost", "127.0.0.1:80", "[::1]:9"):
            assert server.request("/api/catalog", host=host).status == 200
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
            assert server.request("/api/catalog", host=host).status == 421


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
            response = server.request(path)
            assert response.status == 404
            assert b"secret" not in response.body
        for query in NO_SAMPLE:
            response = server.request(f"/api/sample?{query}")
            assert response.status == 404, query
            assert response.json["error"]
        assert server.request("/api/page?first=999999999999&count=999999999999").page[0]["samples"] == []
        assert server.request("/api/catalog").status == 200


@pytest.fixture
def bad_tars(tmp_path: Path) -> Path:
    good = {f"{n}.png": png(n) for n in range(3)}
    intact = tar(good)
    bad = {
        "b-device.tar": tar(good, entry("dev.png", tarfile.CHRTYPE)),
        "c-hard-link.tar": tar(good, entry("l.png", tarfile.LNKTYPE, "0.png")),
        "d-symlink.tar": tar(good, entry("s.png", tarfile.SYMTYPE, "/etc/passwd")),
        "e-truncated.tar": intact[:1300],
        "f-empty.tar": b"",
        "g-noise.tar": os.urandom(4096),
        "h-size-bomb.tar": intact[:124] + b"77777777777\0" + intact[136:],
    }
    hostile = {f"{SCRIPT}.png": png(1), "../../up.png": png(2), "huge.png": huge_png(), "no.png": b"no image", "t.png": png(3)}
    hostile["t.txt"] = SCRIPT.encode()
    for name, data in {"a-good.tar": intact, **bad, "z-hostile.tar": tar(hostile)}.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_bad_tars_are_reported_one_by_one_and_good_ones_are_shown(bad_tars: Path) -> None:
    with served(str(bad_tars)) as server:
        names = sorted(path.name for path in bad_tars.iterdir())
        assert len(server.request("/api/page?shard=0").page[0]["samples"]) == 3
        for shard, name in enumerate(names[1:-1], 1):
            response = server.request(f"/api/page?shard={shard}")
            assert response.status == 404, name
            assert name in response.json["error"]
        described, images = server.request(f"/api/page?shard={len(names) - 1}").page
        samples = {one.get("key"): one for one in described["samples"]}
        shown = {key for key, image in zip(samples, images, strict=True) if image}
        assert samples["huge"]["error"] == "declared size out of range: 60,000 × 60,000 px"
        assert "not an image" in samples["no"]["error"]
        assert shown == {"<img src=x onerror=alert(1)>", "../../up", "t"}
        number = list(samples).index("huge")
        assert server.request(f"/api/image?shard={len(names) - 1}&number={number}").status == 404
        assert server.request("/api/page?shard=0").status == 200


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
    image = thumbnail(stored)
    kind, width, height = read_header(image.data)
    assert (kind, width, height) == ("JPEG", THUMBNAIL_PX * 3 // 4, THUMBNAIL_PX)
    assert full_size(stored).data == stored
    ppm = b"P6 2 1 255\n" + bytes([255, 0, 0, 0, 0, 255])
    assert decode_image(full_size(ppm).data).tolist() == [[[255, 0, 0], [0, 0, 255]]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_bytes_of_an_image_are_shown(data: st.DataObject) -> None:
    beginnings = [png(7), huge_png(100_000), b"GIF89a" + bytes(20), b"\xff\xd8\xff\xe0" + bytes(30), b"\x93NUMPY\1\0"]
    image = bytearray(data.draw(st.sampled_from(beginnings)))
    for at in data.draw(st.lists(st.integers(0, len(image) - 1), max_size=6)):
        image[at] = data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(0, len(image)))])
    for show in (thumbnail, full_size):
        try:
            shown = show(cut)
        except ValueError:
            continue
        assert shown.media_type in ("image/png", "image/jpeg", "image/webp", "image/gif")
        assert read_header(shown.data).width_px * read_header(shown.data).height_px <= 4096 * 4096


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_corrupt_tar_or_index_is_reported_and_never_shown_as_another_image(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After bit flips or truncation, each image that is shown is the one that was written under its number."""
    made = make_set(f"{tmp_path_factory.mktemp('fuzz')}/set", 6, 3)
    name = data.draw(st.sampled_from(["train-000000.tar", "train-000000.index.json", "manifest.json"]))
    path = made.path / name
    corrupt = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        corrupt[data.draw(st.integers(0, len(corrupt) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(corrupt[: data.draw(st.integers(0, len(corrupt)))] if data.draw(st.booleans()) else corrupt)
    try:
        source = Catalog(made.uri).source(None)
        images = Reader().read(source, [SampleRef(0, n) for n in range(3)])
    except AdaInfError:
        return
    for number, image in enumerate(images):
        assert isinstance(image, Unreadable) or np.array_equal(decode_image(image), made.images[number])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_token_is_generated_and_required(tmp_path: Path, host: str) -> None:
    """On loopback, too: a login node has many users."""
    made = make_set(f"{tmp_path}/set", 4, 2)
    command = [sys.executable, "-m", "adainf", "shards", "serve", made.uri, "--port", "0", "--host"]
    with subprocess.Popen([*command, host], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        address = re.search(r"http://([^:]+):(\d+)/\?token=(\S+)", line)
        assert address, line
        server = Served(int(address[2]))
        rejected, accepted = (server.request(f"/api/catalog{query}") for query in ("", f"?token={address[3]}"))
        process.terminate()
    assert (rejected.status, accepted.status) == (401, 303)
    # 0.0.0.0 is not an address that a browser can open.
    assert address[1] == (socket.gethostname() if host == "0.0.0.0" else host)
    assert len(address[3]) >= 32


def test_what_gives_no_protection_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["shards", "serve", make_set(f"{tmp_path}/set", 4, 2).uri, "--port", "0"]
    for host in ("0.0.0.0", "::", "example.com"):
        assert main([*command, "--host", host, "--no-token"]) == BAD_INPUT
        assert "--no-token would give" in capsys.readouterr().err
    monkeypatch.setenv("ADAINF_BROWSE_TOKEN", "abc")
    assert main(command) == BAD_INPUT
    assert "too short" in capsys.readouterr().err
