"""Corrupt shards, with and without an index: each is shown with its reason, and the samples of the others in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from adainf.browse.catalog import Catalog, SampleRef, find, page
from adainf.browse.sources import UnindexedSource
from adainf.cli import main
from adainf.errors import OK, BadInput
from tests.browse.conftest import Open
from tests.browse.hostile import entry, png, tar
from tests.browse.page import LOADED, POSITION, wait
from tests.browse.served import served
from tests.shards.sets import make_set

BAD = {
    "truncated": lambda data: data[:1300],
    "noise": lambda data: bytes(range(256)) * 16,
    "empty": lambda data: b"",
    "link": lambda data: tar({"a.png": png()}, entry("s.png", b"2", "/etc/passwd")),
    "twice": lambda data: tar({"a.png": png(), "b.png": png(), "a.jpg": png()}),
}
UNREADABLE = "document.querySelectorAll('.cell.unreadable').length"


def _tars(folder: Path, corrupt: int, kind: str) -> list[str]:
    """Three tars of three labelled samples, of which one is corrupt; the keys that remain readable."""
    keys = []
    for number, name in enumerate("abc"):
        files: dict[str, bytes] = {}
        for n in range(3):
            files |= {f"{name}{n}.png": png(10 * number + n), f"{name}{n}.cls": b"%d" % (n % 2)}
        data = tar(files)
        (folder / f"{name}.tar").write_bytes(BAD[kind](data) if number == corrupt else data)
        keys += [] if number == corrupt else [f"{name}{n}" for n in range(3)]
    return keys


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("corrupt", [0, 1, 2])
def test_of_tars_without_index_one_tile_names_the_corrupt_one(tmp_path: Path, corrupt: int, kind: str) -> None:
    keys = _tars(tmp_path, corrupt, kind)
    name = f"{'abc'[corrupt]}.tar"
    with served(str(tmp_path)) as server:
        for size in (2, 100):
            samples, first = [], 0
            while True:
                described = server.request(f"/api/page?first={first}&count={size}").page[0]
                samples += described["samples"]
                first += size
                if described["complete"] and first >= described["total"]:
                    break
            assert [one["key"] for one in samples if "error" not in one] == keys
            (tile,) = [one for one in samples if "error" in one]
            assert (tile["shard"], samples.index(tile)) == (corrupt, 3 * corrupt)
            assert name in tile["error"]
        described = server.request("/api/page?label=1&count=100").page[0]
        assert [one.get("key") for one in described["samples"] if "error" not in one] == [key for key in keys if "1" in key]
        assert len(described["samples"]) == 3, "the tile is shown by every filter"
        assert server.request("/api/labels").json == [
            {"label": 0, "name": None, "count": 4},
            {"label": 1, "name": None, "count": 2},
        ]
        for path in ("page", "sample"):
            assert name in server.request(f"/api/{path}?shard={corrupt}").json["error"]


@pytest.mark.parametrize("corrupt", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".tar", ".index.json"])
def test_of_a_set_the_others_are_shown(tmp_path: Path, corrupt: int, suffix: str) -> None:
    made = make_set(f"{tmp_path}/set", 9, 3)
    (made.path / f"train-{corrupt:06d}{suffix}").write_bytes(b"{}")
    bad = range(3 * corrupt, 3 * corrupt + 3)
    with served(made.uri) as server:
        samples = server.request("/api/page?count=100").page[0]["samples"]
        assert [n for n, one in enumerate(samples) if "error" in one] == list(bad)
        label = int(made.labels[bad[1]])
        filtered = server.request(f"/api/page?label={label}&count=100").page[0]["samples"]
        assert [one["shard"] for one in filtered if "error" in one] == [corrupt]
        assert server.request("/api/labels").status == 200


def test_the_terminal_finds_samples_behind_a_corrupt_tar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _tars(tmp_path, 0, "noise")
    source = Catalog(str(tmp_path)).source(None)
    assert find(source, "b1") == SampleRef(1, 1)
    with pytest.raises(BadInput, match=r"no sample 'zz'.*a\.tar"):
        find(source, "zz")
    assert main(["shards", "show", str(tmp_path), "c2"]) == OK
    assert "key     c2" in capsys.readouterr().out


def test_a_page_does_not_wait_for_a_large_tar(tmp_path: Path) -> None:
    """It states which tar is being read; the next one has the samples."""
    _tars(tmp_path, 1, "noise")
    source = Catalog(str(tmp_path)).source(None)
    assert isinstance(source, UnindexedSource)
    with source._scan_lock:
        found = page(source, 0, 100, wait_s=0)
        assert (found.samples, found.complete) == ([], False)
        assert found.reading
        assert page(source, 0, 100, [2], wait_s=0).reading
    assert len(page(source, 0, 100).samples) == 7


@pytest.mark.parametrize("corrupt", [0, 1, 2])
def test_the_grid_shows_a_tile_with_the_reason(tmp_path: Path, open_page: Open, corrupt: int) -> None:
    _tars(tmp_path, corrupt, "truncated")
    with served(str(tmp_path)) as server:
        browser = open_page(f"{server.address}/")
        wait(browser, f"{POSITION} === '1–7 of 7' && {UNREADABLE} === 1 && {LOADED} === 6")
        assert f"{'abc'[corrupt]}.tar: it ends" in browser.execute_script(
            "return document.querySelector('.unreadable').innerText"
        )
        assert browser.execute_script("return document.getElementById('sources').innerText").endswith("7 · 3 shards")
        browser.execute_script("document.querySelector('.unreadable').click()")
        wait(browser, "document.querySelector('#sample .error')?.textContent.includes('.tar: it ends')")
        browser.get(f"{server.address}/#/images/tars?shard={corrupt}")
        wait(browser, f"{UNREADABLE} === 1")
    assert browser.get_log("browser")[0]["message"].count("404"), "the sample of the corrupt tar"


def test_progress_of_a_large_tar_is_shown(tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adainf.browse.app._WAIT_S", 0.1)
    _tars(tmp_path, 1, "noise")
    catalog = Catalog(str(tmp_path))
    source = catalog.source(None)
    assert isinstance(source, UnindexedSource)
    with served(catalog) as server:
        with source._scan_lock:
            browser = open_page(f"{server.address}/")
            wait(browser, f"{POSITION}.startsWith('reading')")
            assert browser.execute_script("return document.getElementById('sources').innerText").endswith("\n3 shards")
        wait(browser, f"{POSITION} === '1–7 of 7' && {LOADED} === 6")


@pytest.mark.parametrize("place", ["images/100%", "images/%E0%A4%A", "images/no", "sample/tars/9/9", "sample/100%/0/0"])
def test_a_mistyped_address_gives_a_sentence(tmp_path: Path, open_page: Open, place: str) -> None:
    _tars(tmp_path, 2, "empty")
    with served(str(tmp_path)) as server:
        browser = open_page(f"{server.address}/#/{place}")
        wait(browser, "document.querySelector('#sample .error')?.textContent.length > 20")
        browser.execute_script("location.hash = '#/images/tars'")
        wait(browser, LOADED)
    browser.get_log("browser")


def test_long_and_right_to_left_keys_keep_to_their_place(tmp_path: Path, open_page: Open) -> None:
    keys = ["k" * 240, "\u202eabc/צבע", "עברית (1)"]
    (tmp_path / "a.tar").write_bytes(tar({f"{key}.png": png(n) for n, key in enumerate(keys)}))
    with served(str(tmp_path)) as server:
        for width in (1280, 360):
            for number, key in enumerate(keys):
                browser = open_page(f"{server.address}/#/sample/tars/0/{number}", width=width)
                wait(browser, "document.querySelector('#sample img')?.naturalWidth")
                assert browser.execute_script("return document.querySelector('#sample bdi').textContent").startswith(key[:80])
                assert not browser.execute_script(
                    "return [...document.querySelectorAll('main *')].some((e) => e.getBoundingClientRect().right > innerWidth)"
                )
                assert (
                    browser.execute_script("return getComputedStyle(document.querySelector('#sample bdi')).unicodeBidi")
                    == "isolate"
                )
