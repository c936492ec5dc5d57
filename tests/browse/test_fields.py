"""The fields of .json: shown, counted and filtered; search in keys and captions. With and without indexes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from adainf.cli import main
from adainf.errors import OK
from tests.browse.conftest import Open
from tests.browse.hostile import png, tar
from tests.browse.page import LOADED, POSITION, axe, press, wait
from tests.browse.served import Response, Served, served

SCORES = np.random.default_rng(0).normal(0, 1, 30).round(3).tolist()
FIELDS: list[dict[str, Any]] = [
    {"score": score, "artist": "ABC"[n % 3], "safe": n % 2 == 0, "size": {"width": 100 + n % 4}, "tags": ["x", n]}
    for n, score in enumerate(SCORES)
]


@pytest.fixture(params=["png", "jpg"])
def tars(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Thirty samples in three tars; the .json is before a .png and after a .jpg."""
    for shard in range(3):
        files: dict[str, bytes] = {}
        for n in range(10 * shard, 10 * shard + 10):
            sample = {
                f"s{n:02d}.cls": b"%d" % (n % 5),
                f"s{n:02d}.json": json.dumps(FIELDS[n]).encode(),
                f"s{n:02d}.txt": f"Caption of {'an Owl' if n % 7 == 0 else 'a cat'} {n}".encode(),
                f"s{n:02d}.{request.param}": png(n),
            }
            files |= {name: sample[name] for name in sorted(sample)}
        (tmp_path / f"{'abc'[shard]}.tar").write_bytes(tar(files))
    return tmp_path


ONE_KIND = pytest.mark.parametrize("tars", ["jpg"], indirect=True)


def _page(server: Served, **query: Any) -> Response:
    return server.request(f"/api/page?{urlencode(query, doseq=True)}&count=100")


def _keys(server: Served, **query: Any) -> list[str]:
    return [one["key"] for one in _page(server, **query).page[0]["samples"]]


def _numbers(server: Served, *conditions: list[Any], **query: Any) -> list[int]:
    return [int(key[1:]) for key in _keys(server, where=[json.dumps(one) for one in conditions], **query)]


@pytest.mark.parametrize("indexed", [False, True])
def test_fields_are_shown_counted_and_filtered(tars: Path, indexed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if indexed:
        assert main(["shards", "index", str(tars)]) == OK
    rows = range(30)
    with served(str(tars)) as server:
        for n in (0, 4, 9, 10, 29):
            sample = server.request(f"/api/sample?shard={n // 10}&number={n % 10}").json
            assert dict(sample["fields"]) == {
                "score": f"{SCORES[n]}",
                "artist": "ABC"[n % 3],
                "safe": "false" if n % 2 else "true",
                "size.width": f"{100 + n % 4}",
                "tags": f'["x", {n}]',
            }
        fields = {one["name"]: one for one in server.request("/api/fields").json}
        assert {name: one["kind"] for name, one in fields.items()} == {
            "score": "number",
            "artist": "category",
            "safe": "category",
            "size.width": "category",
            "tags": "category",
        }
        assert [(bar[1], bar[2]) for bar in fields["size.width"]["bars"]] == [("100", 8), ("101", 8), ("102", 7), ("103", 7)]
        assert sum(bar[2] for bar in fields["score"]["bars"]) == 30
        found: list[int] = []
        for condition, _, count in fields["score"]["bars"]:
            of_bar = _numbers(server, condition)
            assert len(of_bar) == count
            found += of_bar
        assert sorted(found) == list(rows), "every sample is in one bar"
        assert _numbers(server, ["artist", "B"]) == [n for n in rows if n % 3 == 1]
        both = _numbers(server, ["artist", "B"], ["score", 0, 9], shard=1, label=2)
        assert both == [n for n in range(10, 20) if n % 3 == 1 and SCORES[n] >= 0 and n % 5 == 2]
        assert _numbers(server, ["safe", "true"], q="owl") == [0, 14, 28]
        assert _numbers(server, ["no", "x"]) == []
        assert _keys(server, q="S1") == [f"s{n}" for n in range(10, 20)]
        assert _keys(server, q="owl", label=0) == ["s00"]
    assert main(["shards", "show", str(tars), "s04"]) == OK
    assert "json    size.width: 100" in capsys.readouterr().out


@pytest.mark.parametrize(
    "where",
    ["", "x", "{}", "[]", '["a"]', '["a", 1]', '["a", 1, "b"]', '["a", 1, 2, 3]', "[" * 5000, '["a", NaN, true]', "9" * 5000],
)
def test_malformed_conditions_are_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar({"a.png": png(), "a.json": b'{"a": 1}'}))
    with served(str(tmp_path)) as server:
        response = _page(server, where=where)
        if where == '["a", NaN, true]':  # a range without numbers
            assert response.status == 200
        else:
            assert (response.status, "invalid where" in response.json["error"]) == (404, True)
        assert _page(server, q="a" * 201).status == 404


HOSTILE = {
    "list": b"[1, 2]",
    "invalid": b"{",
    "latin": b'{"a": "\xe9"}',
    "deep": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "nan": b'{"a": NaN, "b": Infinity, "c": 1e999}',
    "huge": b'{"a": ' + b"9" * 4000 + b"}",
    "long": json.dumps({"k" * 5000: "v" * 100_000}).encode(),
    "many": json.dumps({f"f{n}": n for n in range(1000)}).encode(),
    "null": b'{"a": null, "": "", "\\ud800": "\\ud800"}',
    "markup": json.dumps({"<img src=x onerror=alert(1)>": "</script><b>"}).encode(),
}


def test_unusual_json_gives_what_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tar({f"{name}.{kind}": data for name, of in HOSTILE.items() for kind, data in (("jpg", png()), ("json", of))})
    )
    (tmp_path / "b.tar").write_bytes(tar({"x.jpg": png(1), "x.json": b'{"a": 2}'})[:1600])
    with served(str(tmp_path)) as server:
        found = {one["name"]: one for one in server.request("/api/fields").json}
        assert len(found) <= 64
        assert all(len(name) <= 201 for name in found)
        for number, name in enumerate(HOSTILE):
            sample = server.request(f"/api/sample?shard=0&number={number}").json
            assert sample["key"] == name
            assert all(len(text) <= 201 or name == "huge" for _, text in sample["fields"])
        assert _page(server, where='["a", "NaN"]').page[0]["total"] == 2, "the sample, and the tile of the corrupt tar"
        assert [one["name"] for one in server.request("/api/fields?shard=0").json] == list(found)


@ONE_KIND
def test_tables_are_bounded(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sets that are too large, one shard can still be chosen."""
    total = sum(path.stat().st_size for path in tars.glob("*.tar"))
    for name, limit in (("MAX_VALUES", 100), ("MAX_BYTES", total - 1)):
        with monkeypatch.context() as patch, served(str(tars)) as server:
            patch.setattr(f"adainf.browse.fields.{name}", limit)
            assert "choose one shard" in server.request("/api/fields").json["error"]
            assert "choose one shard" in _page(server, where='["artist", "A"]').json["error"]
            assert len(server.request("/api/fields?shard=1").json) == 5
            assert _numbers(server, ["artist", "A"], shard=1) == [12, 15, 18]


@ONE_KIND
def test_the_page_filters_by_bars_and_by_text(tars: Path, open_page: Open) -> None:
    with served(str(tars)) as server:
        browser = open_page(f"{server.address}/")
        wait(browser, f"{POSITION} === '1–30 of 30'")
        browser.execute_script("document.getElementById('statistics-button').click()")
        wait(browser, "document.querySelectorAll('#statistics section').length === 6")
        titles = browser.execute_script("return [...document.querySelectorAll('#statistics h2')].map((one) => one.textContent)")
        assert titles == ["Label", "score", "artist", "safe", "size.width", "tags"]
        browser.execute_script("document.querySelectorAll('#statistics section')[2].querySelectorAll('.stat')[1].click()")
        wait(browser, f"{POSITION} === '1–10 of 10' && {LOADED} === 10")
        assert browser.execute_script("return document.querySelector('.chip').textContent") == "artist: B ×"
        browser.execute_script("document.querySelectorAll('#statistics section')[0].querySelectorAll('.stat')[2].click()")
        wait(browser, f"{POSITION} === '1–2 of 2'")
        address = browser.current_url
        browser = open_page(address)
        wait(browser, f"{POSITION} === '1–2 of 2' && {LOADED} === 2")
        wait(browser, "document.querySelectorAll('#statistics .stat[aria-current]').length === 2")
        assert not browser.execute_script("return document.getElementById('label-filter').hidden")
        axe(browser)
        browser.execute_script("document.querySelector('.chip').click()")
        wait(browser, f"{POSITION} === '1–6 of 6'")
        search = "const s = document.getElementById('search'); s.value = 'owl'; s.dispatchEvent(new Event('change'))"
        browser.execute_script(search)
        wait(browser, f"{POSITION} === '1–1 of 1' && {LOADED} === 1")
        browser = open_page(browser.current_url, width=360, height=740)
        wait(browser, "document.querySelectorAll('#statistics section').length === 6")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


@ONE_KIND
def test_the_keys_of_a_selection_are_exported(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tars / "d.tar").write_bytes(b"no tar")
    with served(str(tars)) as server:

        def exported(**query: Any) -> list[dict[str, Any]]:
            body = server.request(f"/api/keys?{urlencode(query, doseq=True)}").body.decode()
            return [json.loads(line) for line in body.splitlines()]

        assert [one["key"] for one in exported()] == [f"s{n:02d}" for n in range(30)]
        assert exported(label=2, q="s1") == [
            {"source": "tars", "shard": 1, "key": "s12"},
            {"source": "tars", "shard": 1, "key": "s17"},
        ]
        assert [one["key"] for one in exported(where='["artist", "C"]', shard=2)] == ["s20", "s23", "s26", "s29"]
        monkeypatch.setattr("adainf.browse.app.MAX_KEYS", 20)
        response = server.request("/api/keys")
        assert (response.status, response.json["error"]) == (
            404,
            "the selection has 31 images; select at most 20 to export their keys",
        )


@ONE_KIND
def test_images_are_tagged_by_keyboard_and_exported(tars: Path, open_page: Open) -> None:
    from selenium.webdriver.common.keys import Keys

    with served(str(tars)) as server:
        browser = open_page(f"{server.address}/")
        wait(browser, LOADED)
        assert browser.execute_script("return document.getElementById('export').textContent") == "Export keys"
        press(browser, "t", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "t", Keys.ARROW_RIGHT, "t", "t")
        wait(browser, "document.getElementById('export').textContent === 'Export 2 tagged'")
        browser = open_page(f"{server.address}/#/images/tars?label=0")
        wait(browser, f"document.querySelectorAll('.cell.tagged').length === 1 && {POSITION} === '1–6 of 6'")
        script = """const blob = URL.createObjectURL; let kept;
          URL.createObjectURL = (one) => { kept = one; return blob(one); };
          document.getElementById('export').click(); URL.createObjectURL = blob; kept.text().then(arguments[0])"""
        lines = browser.execute_async_script(script).splitlines()
        assert [json.loads(line) for line in lines] == [{"source": "tars", "shard": 0, "key": f"s0{n}"} for n in (0, 2)]
        browser.execute_script("localStorage.clear()")
