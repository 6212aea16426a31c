"""A real Chromium, as an operator has one, with or without JavaScript.

Owns: starting and ending it, screenshots. Must not know: what any test is about.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.kafka_client import wait_until
from tests.process_harness import ROOT
from tests.web.asking import TOKEN

__all__ = ["Browser", "chromium"]

T = TypeVar("T")
SHOTS = ROOT / "screenshots"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One browser window on one site."""

    def __init__(self, driver: webdriver.Chrome, base: str, name: str, *, javascript: bool) -> None:
        self.driver = driver
        self.javascript = javascript
        self._base = base
        self._name = name
        self._shots = 0

    def open(self, path: str) -> None:
        """Go to an address of the site."""
        self.driver.get(self._base + path)

    def log_in(self) -> None:
        """As an operator does: with the token, on the login page."""
        self.find("#token").send_keys(TOKEN)
        self.find("main button").click()
        wait_until(lambda: self.all(".who button"), 20, "the session")

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Every element of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def link(self, text: str) -> WebElement:
        """The first link whose text has this in it."""
        return self.driver.find_element(By.PARTIAL_LINK_TEXT, text)

    def click(self, selector: str) -> None:
        """Click on the first element of a CSS selector."""
        _again(lambda: self.find(selector).click())

    def said(self, selector: str) -> str:
        """The text of the first element of a CSS selector."""
        return _again(lambda: self.find(selector).text)

    def count(self, selector: str) -> int:
        """How many elements there are; does not wait for any."""
        script = "return document.querySelectorAll(arguments[0]).length"
        return int(self.driver.execute_script(script, selector))

    @property
    def text(self) -> str:
        """What the page says."""
        return self.said("body")

    @property
    def path(self) -> str:
        """The address, without the site."""
        return self.driver.current_url.removeprefix(self._base)

    def shot(self, what: str) -> None:
        """Keep a picture of the whole page."""
        SHOTS.mkdir(exist_ok=True)
        self._shots += 1
        width = self.driver.get_window_size()["width"]
        height = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["height"]
        self.driver.set_window_size(width, min(int(height) + 150, 3_000))
        self.driver.save_screenshot(str(SHOTS / f"{self._name}-{self._shots:02}-{what}.png"))
        self.driver.set_window_size(width, 900)

    def become_a_phone(self, width: int = 360) -> None:
        """Show pages as a phone of this width does; windows do not get narrower than 500."""
        metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def complaints(self) -> list[str]:
        """What the browser logged: errors of scripts, and of what the page's policy forbade."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]


def _again(act: Callable[[], T]) -> T:
    """Do it again where the page renewed a part of itself meanwhile."""
    for _ in range(5):
        try:
            return act()
        except StaleElementReferenceException:
            continue
    return act()


@contextmanager
def chromium(
    base: str, name: str, *, javascript: bool = True, width: int = 1360, dark: bool = False
) -> Iterator[Browser]:
    """A fresh browser; under `CI` it must be there, elsewhere the test is skipped without it."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver_binary = shutil.which("chromedriver")
    if binary is None or driver_binary is None:
        assert not os.environ.get("CI"), "chromium and chromium-driver must be installed: see the README"
        pytest.skip("needs chromium and chromium-driver")
    profile = Path(tempfile.mkdtemp(prefix="stagepost-chromium-"))
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900"):
        options.add_argument(flag)
    if dark:
        options.add_argument("--blink-settings=preferredColorScheme=0")
    if not javascript:
        prefs = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", prefs)
    driver = webdriver.Chrome(options=options, service=Service(driver_binary))
    try:
        driver.set_page_load_timeout(60)
        driver.implicitly_wait(5)
        yield Browser(driver, base, name, javascript=javascript)
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
