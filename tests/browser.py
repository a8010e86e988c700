"""A headless Chromium for pages that the tests wrote."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.system_programs import require

CHROMIUM, DRIVER = "chromium", "chromedriver"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WIDE, PHONE = 1280, 390
SECONDS = 300
"""Limit on the time that loading a page or running a script takes, so that a hang ends."""


@contextmanager
def chromium(profile: Path) -> Iterator["Browser"]:
    """Yield a browser with a fresh profile. Skips the test if Chromium is not installed."""
    for program in (CHROMIUM, DRIVER):
        require(program)
    options = Options()
    options.binary_location = str(shutil.which(CHROMIUM))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which(DRIVER)))
    try:
        driver.command_executor.client_config.timeout = SECONDS + 30
        driver.set_page_load_timeout(SECONDS)
        driver.set_script_timeout(SECONDS)
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """Opens pages, runs scripts in them, and reports what happened."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, page: Path | str, *, width: int = WIDE, height: int = 900, dark: bool = False
    ) -> None:
        """Load a file or an address in a window of a given size, in light or dark mode."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width == PHONE},
        )
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # drops the entries of earlier pages
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)

    def script(self, text: str, *arguments: object) -> Any:
        """Run a script and return its result."""
        return self.driver.execute_script(text, *arguments)

    def text(self) -> str:
        """Return the visible text of the page."""
        return str(self.script("return document.body.innerText"))

    def console_messages(self) -> list[str]:
        """Return what has been written to the console since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """Return every address that was requested since the page was opened."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }

    def violations(self) -> list[str]:
        """Return the violations that axe, the accessibility checker, finds in the visible page.

        Contrast is left out: it takes axe most of its time.
        """
        self.script(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text())
        found = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run({rules: {'color-contrast': {enabled: false}}})"
            ".then(done, error => done({error: `${error}`}));"
        )
        return [
            f"{violation['id']}: {node['html'][:160]}: {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def picture(self, height: int) -> bytes:
        """Return a PNG of the top of the page."""
        width = self.script("return innerWidth")
        screenshot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "format": "png",
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
            },
        )
        return base64.b64decode(screenshot["data"])

    def pdf(self) -> bytes:
        """Return the page as it is printed on A4."""
        printed = self.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
        return base64.b64decode(printed["data"])
