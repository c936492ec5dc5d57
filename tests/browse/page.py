"""What the tests of the page look at in a browser."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def wait(browser: Chrome, script: str, seconds: float = 10) -> Any:
    """Wait until the expression is true in the page; returns its value."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, 0.05).until(lambda driver: driver.execute_script(f"return {script}"), script)


def press(browser: Chrome, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


LOADED = """(() => { const all = [...document.querySelectorAll('.cell img')];
  return all.length && all.every((image) => image.naturalWidth) && all.length })()"""
NUMBER = "document.querySelector('#sample tr:nth-child(4) td').textContent"
POSITION = "document.getElementById('position').textContent"
SHOWN = """[...document.querySelectorAll('.cell img')].map((i) => { const c = document.createElement('canvas');
  c.width = i.naturalWidth; c.height = i.naturalHeight; const x = c.getContext('2d'); x.drawImage(i, 0, 0);
  return [i.alt, [...x.getImageData(0, 0, c.width, c.height).data]] })"""


def images(browser: Chrome) -> dict[str, np.ndarray]:
    """The images that the page shows, by their alternative text."""
    found = browser.execute_script(f"return {SHOWN}")
    return {alt: np.array(values, np.uint8).reshape(4, 4, 4)[..., :3] for alt, values in found}


def axe(browser: Chrome) -> None:
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script("const done = arguments[0]; axe.run(document).then((r) => done(r.violations))")
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious]
