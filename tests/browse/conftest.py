"""A headless Chromium for the tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

MISSING = "tests of the page require Chromium; run apt-get install chromium chromium-driver, and pip install -e '.[test]'"
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-device-scale-factor=1")

Open = Callable[..., "Chrome"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        pytest.skip(MISSING)
    if binary is None or driver is None:
        pytest.skip(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def open_page(chromium: Chrome) -> Iterator[Open]:
    """``open_page(address, width, height, dark)``: the page in a fresh state. Fails if its console is not empty afterwards."""

    def enter(address: str, width: int = 1280, height: int = 800, dark: bool = False) -> Chrome:
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        chromium.get("about:blank")
        chromium.get(address)
        return chromium

    yield enter
    messages = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not messages
