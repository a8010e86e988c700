"""A real Chromium without a screen, for pages that the tests wrote; no page may reach a network."""

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

from tests.programs import require

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
"""For a page or a script, on a machine that does other work too."""


@contextmanager
def chromium(profile: Path) -> Iterator["Browser"]:
    """A browser with a fresh profile; skips the test where there is none."""
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
    """Opens pages and tells what came of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, page: Path | str, *, width: int = WIDE, height: int = 900, dark: bool = False
    ) -> None:
        """Load a file or an address anew, in a window of a size and in light or dark."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width == PHONE},
        )
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what came before
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)

    def script(self, text: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(text, *arguments)

    def text(self) -> str:
        """What a reader sees."""
        return str(self.script("return document.body.innerText"))

    def complaints(self) -> list[str]:
        """What the console has been told since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """Every address that was asked for since the page was opened."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }

    def violations(self) -> list[str]:
        """What axe, the accessibility checker, finds wrong with the page."""
        self.script(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text())
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(done, error => done({error: `${error}`}));"
        )
        return [
            f"{violation['id']}: {node['html'][:160]}: {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def picture(self, height: int) -> bytes:
        """A PNG of the page from its top."""
        width = self.script("return innerWidth")
        taken = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "format": "png",
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
            },
        )
        return base64.b64decode(taken["data"])
