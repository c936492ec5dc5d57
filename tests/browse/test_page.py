"""The page in a real browser, on a shard set on a real S3 server."""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adainf.augment.profiles import default_views
from adainf.inflation.policy import make_plan
from adainf.inflation.record import Inputs, SourceStats
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Request
from adainf.recipe import Augmentation, Plan
from tests.browse.conftest import Open
from tests.browse.hostile import entry, huge_png, png, tar
from tests.browse.mapped import inside, make_mapped
from tests.browse.page import LOADED, NUMBER, POSITION, axe, images, press, wait
from tests.browse.served import Served, served
from tests.shards.sets import Made, make_set

IMAGES, SHARD = 3000, 500
RUNS_ON_S3 = "s3://runs/browsed"


@pytest.fixture(scope="module")
def made(s3_server: Any) -> Iterator[tuple[Made, Served]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.env.items():
            patch.setenv(name, value)
        made = make_set(f"{RUNS_ON_S3}/real", IMAGES, SHARD, size_px=4)
        run = Run(RUNS_ON_S3)
        plan = make_plan(
            Inputs(real_images=IMAGES, sources={"generated": SourceStats(images=10)}, reference_images=IMAGES),
            Plan(),
            default_views(Augmentation()),
        )
        run.commit("plan", Manifest(request=Request(stage="plan", settings={}), content=plan.model_dump(mode="json")))
        lines = [{"event": "progress", "label": "pretrain none (seed 0)", "done": n, "loss": 5 / n} for n in (1, 2, 3)]
        run.store.put("logs/run/1.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        with served(RUNS_ON_S3) as server:
            yield made, server


def test_the_grid_shows_the_images_and_scrolls_to_the_last(made: tuple[Made, Served], open_page: Open) -> None:
    browser = open_page(f"{made[1].address}/#/images/real%2Ftrain")
    count = wait(browser, LOADED)
    assert 60 < count < 400  # only visible ones, not three thousand
    shown = images(browser)
    assert len(shown) == count
    assert all(np.array_equal(image, made[0].images[int(alt.split()[1])]) for alt, image in shown.items())
    browser.execute_script("const g = document.getElementById('grid'); g.scrollTop = g.scrollHeight")
    wait(browser, f"{POSITION}.includes('–3,000 of 3,000')")
    wait(browser, f"{LOADED} && document.querySelector('[alt=\"Sample 002999\"]')")
    shown = images(browser)
    assert np.array_equal(shown["Sample 002999"], made[0].images[2999])
    assert all(np.array_equal(image, made[0].images[int(alt.split()[1])]) for alt, image in shown.items())


def test_filters_select_and_the_url_keeps_them(made: tuple[Made, Served], open_page: Open) -> None:
    browser = open_page(f"{made[1].address}/#/images/real%2Ftrain?shard=5&label=3")
    wait(browser, LOADED)
    wanted = np.flatnonzero((made[0].labels == 3) & (np.arange(IMAGES) >= 5 * SHARD))
    assert wait(browser, POSITION).endswith(f"of {len(wanted)}")
    assert {int(alt.split()[1]) for alt in images(browser)} == set(wanted.tolist())
    assert browser.execute_script("return document.getElementById('label').selectedOptions[0].text") == "3 (300)"
    browser.execute_script("const s = document.getElementById('shard'); s.value = ''; s.dispatchEvent(new Event('change'))")
    wait(browser, f"{POSITION}.endsWith('of 300')")
    assert browser.current_url.endswith("real%2Ftrain?label=3")


def test_everything_works_by_keyboard(made: tuple[Made, Served], open_page: Open) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = open_page(f"{made[1].address}/#/images/real%2Ftrain")
    wait(browser, LOADED)
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    wait(browser, "location.hash.endsWith('/0/2')")
    wait(browser, "document.getElementById('sample-title')?.textContent === 'Sample 000002'")
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, "document.getElementById('sample-title').textContent === 'Sample 000003'")
    text = browser.execute_script("return document.getElementById('sample').innerText")
    for expected in ("real/train", f"{RUNS_ON_S3}/real/train-000000.tar", "PNG, 4 × 4 px", "3 of 500 in shard 0"):
        assert expected in text
    press(browser, Keys.ESCAPE)
    wait(browser, "!document.getElementById('images').hidden")
    press(browser, Keys.END)
    wait(browser, f"{POSITION}.includes('–3,000 of')")
    wait(browser, "document.querySelector('.cell.selected img')?.alt === 'Sample 002999'")
    press(browser, "?")
    wait(browser, "document.getElementById('help').open")


def test_the_overview_is_refreshed_while_a_run_trains(made: tuple[Made, Served], open_page: Open) -> None:
    browser = open_page(f"{made[1].address}/")
    wait(browser, "document.querySelector('#overview svg')")
    text = browser.execute_script("return document.getElementById('overview').innerText")
    for expected in ("real/train", "3,000", "real weight", "our prior", "plan"):
        assert expected in text
    before = browser.execute_script("return document.querySelector('svg').getAttribute('aria-label')")
    assert before.endswith("pretrain none (seed 0) 1.67")
    line = json.dumps({"event": "progress", "label": "pretrain none (seed 0)", "done": 4, "loss": 1.25})
    Run(RUNS_ON_S3).store.put("logs/run/2.jsonl", f"{line}\nno json\n".encode())
    wait(browser, "document.querySelector('svg').getAttribute('aria-label').endsWith(' 1.25')", 15)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("place", ["", "images/real%2Ftrain", "sample/real%2Ftrain/0/7"])
def test_axe_finds_nothing_serious(made: tuple[Made, Served], open_page: Open, place: str, dark: bool) -> None:
    browser = open_page(f"{made[1].address}/#/{place}", dark=dark)
    wait(browser, "document.querySelector('main img, main svg')")
    assert browser.execute_script("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
    axe(browser)


def test_on_a_phone_nothing_is_wider_than_the_screen(made: tuple[Made, Served], open_page: Open) -> None:
    for place in ("", "images/real%2Ftrain", "sample/real%2Ftrain/0/7"):
        browser = open_page(f"{made[1].address}/#/{place}", width=360, height=740)
        wait(browser, "document.querySelector('main img, main svg')")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        wide = "[...document.querySelectorAll('main section:not([hidden])')].some((e) => e.scrollWidth > e.clientWidth)"
        assert not browser.execute_script(f"return {wide}")


def test_the_map_of_another_source_is_rendered_again(tmp_path: Path, open_page: Open) -> None:
    """Would catch points cached from the first source's map, and a link to the real images that loses the map."""
    (run, _), (_, of_b) = (make_mapped(str(tmp_path), source, seed) for source, seed in (("a", 0), ("b", 1)))
    region = "-1.5_-1_1.2_-1.1_0_0_1_1.5_-1_1"
    with served(run.uri) as server:
        browser = open_page(f"{server.address}/#/images/generated%2Fa%2Ftrain?map=all")
        wait(browser, "document.querySelectorAll('#map-counts a').length === 2")
        links = browser.execute_script(
            "return [...document.querySelectorAll('#sources a[href*=map]')].map((one) => one.innerText)"
        )
        assert [text.split("\n")[1] for text in links] == [f"embedding of real and generated/{name}/train" for name in "ab"]
        browser.execute_script(f"location.hash = '#/images/generated%2Fb%2Ftrain?map={region}'")
        chosen = int(inside(of_b.generated_xy, region).sum())
        wait(browser, f"document.getElementById('map-counts').innerText.includes('{chosen} generated')")
        wait(browser, f"{POSITION}.endsWith('of {chosen}')")
        real = int(inside(of_b.real_xy, region).sum())
        assert f"{real} real" in browser.execute_script("return document.getElementById('map-counts').innerText")
        browser.execute_script("document.querySelector('#map-counts a').click()")
        wait(browser, f"{POSITION}.endsWith('of {real}') && location.hash.endsWith('&of=generated%2Fb%2Ftrain')")


def test_a_region_of_the_map_is_shown_in_the_grid(tmp_path: Path, open_page: Open) -> None:
    """Selected with the mouse, then by keyboard; a sample shows the nearest real image."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    run, embedding = make_mapped(str(tmp_path))
    with served(run.uri) as server:
        browser = open_page(f"{server.address}/#/images/generated%2Ftrain?map=all")
        wait(browser, f"{POSITION}.endsWith('of 30')")
        buffer = "document.querySelector('#map canvas').getContext('2d').getImageData(0, 0, 500, 500).data.buffer"
        assert wait(browser, f"new Set(new Uint32Array({buffer})).size > 2"), "both kinds of points, and the background"
        canvas = browser.find_element("css selector", "#map canvas")
        right, up = canvas.size["width"] // 2 - 3, 3 - canvas.size["height"] // 2
        drag = ActionChains(browser, duration=20).move_to_element(canvas).click_and_hold()
        drag.move_by_offset(right, 0).move_by_offset(0, up).move_by_offset(-right, 0).release().perform()
        wait(browser, "location.hash.includes('_')")
        region = browser.current_url.partition("map=")[2]
        chosen, points = inside(embedding.generated_xy, region), np.concatenate([embedding.real_xy, embedding.generated_xy])
        middle, pixels = (points.min(0) + points.max(0)) / 2, 0.05
        assert (embedding.generated_xy[chosen] > middle - pixels).all(), "the upper right quarter of the map"
        assert chosen[(embedding.generated_xy > middle + pixels).all(1)].all()
        real, wanted = inside(embedding.real_xy, region).sum(), embedding.generated_rows[chosen]
        assert 0 < len(wanted) < 30
        wait(browser, f"{POSITION}.endsWith('of {len(wanted)}') && {LOADED}")
        assert sorted(int(alt.split()[1]) for alt in images(browser)) == wanted.tolist()
        counts = browser.execute_script("return document.getElementById('map-counts').innerText").split()
        assert counts == [str(real), "real", str(len(wanted)), "generated"]
        axe(browser)
        browser.execute_script("document.querySelector('#map-counts a').click()")
        wait(browser, f"{POSITION}.endsWith('of {real}') && location.hash.includes('real%2Ftrain?map=')")

        browser.execute_script("document.querySelector('#map canvas').focus()")
        press(browser, Keys.ESCAPE)
        wait(browser, f"{POSITION}.endsWith('of 30')")
        press(browser, "+", "+", "+", Keys.ARROW_LEFT, Keys.ENTER)
        wait(browser, "location.hash.includes('_')")
        near = int(inside(embedding.real_xy, browser.current_url.partition("map=")[2]).sum())
        assert 0 < near < 30
        wait(browser, f"{POSITION}.endsWith('of {near}')")

        browser.get(f"{server.address}/#/sample/generated%2Ftrain/0/3")
        href = wait(browser, "document.querySelector('#nearest a')?.getAttribute('href')")
        assert href == f"#/sample/real%2Ftrain/{'/'.join(map(str, divmod(int(embedding.nearest_rows[1]), 25)))}"
        wait(browser, "document.querySelector('#nearest img').naturalWidth")
        browser = open_page(f"{server.address}/#/images/generated%2Ftrain?map=all", width=360, height=740)
        wait(browser, LOADED)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        assert browser.execute_script("return document.querySelector('#map canvas').clientHeight") > 100


def test_a_million_rows_scroll_to_the_last_pixel(tmp_path: Path, open_page: Open) -> None:
    """A grid higher than the maximum height of an element: the end is reachable, and small steps are small."""
    with served(make_set(f"{tmp_path}/set", 20, 10).uri) as server:
        browser = open_page(f"{server.address}/")
        wait(browser, LOADED)
        script = """const { Grid } = await import('./grid.js'); const element = document.createElement('div');
          element.style.cssText = 'height: 500px; width: 400px; overflow-y: scroll'; document.body.append(element);
          let seen; const grid = new Grid(element, { onMove: (...all) => { seen = all; }, onOpen() {}, hrefOf: () => '#' });
          grid.request = () => {}; grid.show({}, 1000000); const wait = () => new Promise((r) => setTimeout(r, 100));
          element.scrollTop = element.scrollHeight; await wait(); const end = seen[1];
          grid.move(grid.maxTop / 2); await wait(); const middle = grid.top; element.scrollTop += 100; await wait();
          return [end, grid.top - middle, element.querySelectorAll('.cell').length]"""
        wrapped = f"const done = arguments[0]; (async () => {{ {script} }})().then(done)"
        end, step, cells = browser.execute_async_script(wrapped)
        assert end == 1_000_000
        assert math.isclose(step, 100, abs_tol=1)
        assert cells < 100


def test_hostile_names_and_images_are_text_and_tiles(tmp_path: Path, open_page: Open) -> None:
    script = "<img src=x onerror=alert(1)>"
    hostile = {f"{script}.png": png(1), "big.png": huge_png(), "no.png": b"no image", "t.png": png(3), "t.txt": script.encode()}
    (tmp_path / "a.tar").write_bytes(tar(hostile))
    (tmp_path / "b.tar").write_bytes(tar({"0.png": png()}, entry("s.png", tarfile.SYMTYPE, "/etc/passwd")))
    with served(str(tmp_path)) as server:
        browser = open_page(f"{server.address}/#/images/tars?shard=0")
        wait(browser, "document.querySelectorAll('.cell.unreadable').length === 2")
        wait(browser, "document.querySelectorAll('.cell img').length === 2")
        assert browser.execute_script("return document.querySelector('.cell img').alt") == f"Sample {script}"
        for number in (0, 3):
            browser.get(f"{server.address}/#/sample/tars/0/{number}")
            wait(browser, f"document.querySelector('#sample img')?.naturalWidth && {NUMBER}.startsWith('{number} of')")
            assert script in browser.execute_script("return document.getElementById('sample').innerText")
        browser.get(f"{server.address}/#/sample/tars/0/1")
        wait(browser, "document.querySelector('#sample .error')?.textContent.includes('60,000')")
        browser.execute_script("document.body.append(Object.assign(document.createElement('p'), {id: 'mark'}))")
        browser.execute_script("location.hash = '#/images/tars?shard=0'")
        wait(browser, "!document.getElementById('images').hidden && document.getElementById('mark')")


def test_no_request_goes_to_another_host(made: tuple[Made, Served], open_page: Open) -> None:
    for place in ("", "images/real%2Ftrain", "sample/real%2Ftrain/0/7"):
        browser = open_page(f"{made[1].address}/#/{place}")
        wait(browser, "document.querySelector('main img, main svg')")
        names = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert names
        assert all(name.startswith((made[1].address, f"blob:{made[1].address}")) for name in names)
        assert Image.open(io.BytesIO(base64.b64decode(browser.get_screenshot_as_base64()))).size == (1280, 800)
