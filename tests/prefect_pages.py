"""Prefect's pages about one run, in a browser."""

import io
from typing import Any

from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import SECONDS, Browser
from tests.prefect_services import answer_of

TALL = 1300
"""Height in pixels that shows all tasks below the graph; the page omits what is out of sight."""

MODE = "return document.documentElement.className"
FIGURE = "img[src^='data:image/svg']"


class PrefectPages:
    """Each method waits until the page shows what it is about."""

    def __init__(self, browser: Browser, api: str, run: str) -> None:
        self.browser = browser
        self.api, self.run = api, run
        self._wait = WebDriverWait(browser.driver, SECONDS)

    def open_run(self) -> None:
        """Open the page with the run's graph and log."""
        self.browser.open(f"{self._address}/runs/flow-run/{self.run}", height=TALL)
        self._wait.until(lambda driver: driver.find_elements(By.TAG_NAME, "canvas"))

    def open_tab(self, name: str) -> None:
        """Open a tab of the run's page."""
        tab = self._wait.until(lambda _: self._tab(name))
        assert tab is not None
        tab.click()
        self._wait.until(lambda driver: f"tab={name.replace(' ', '+')}" in driver.current_url)

    def open_artifact(self, key: str) -> None:
        """Open the page of the run's artifact with this key."""
        (found,) = [each for each in self.artifacts() if each["key"] == key]
        self.browser.open(f"{self._address}/artifacts/artifact/{found['id']}")
        self._wait.until(lambda _: str(found["description"]) in self.browser.text())

    def follow_link(self, text: str) -> None:
        """Click a link that opens another tab, and go on in that tab."""
        driver = self.browser.driver
        before = set(driver.window_handles)
        self._wait.until(lambda _: driver.find_elements(By.LINK_TEXT, text))[0].click()
        (opened,) = self._wait.until(lambda _: set(driver.window_handles) - before)
        driver.close()
        driver.switch_to.window(opened)

    def open_runs(self) -> None:
        """Open the list of all runs."""
        self.browser.open(f"{self._address}/runs", height=TALL)

    def switch_to(self, mode: str) -> None:
        """Choose the mode, `light` or `dark`, with the switch of the settings page."""
        self.browser.open(f"{self._address}/settings")
        side = {"light": "p-toggle__prepend", "dark": "p-toggle__append"}[mode]
        self._wait.until(lambda driver: driver.find_elements(By.CLASS_NAME, side))[0].click()
        self._wait.until(lambda _: self.browser.script(MODE) == mode)

    def paper(self) -> tuple[int, ...]:
        """Return the colour, as red, green and blue, near a corner of the first figure."""
        figure = self._wait.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, FIGURE))[0]
        self._wait.until(lambda _: self.browser.script("return arguments[0].complete", figure))
        with Image.open(io.BytesIO(figure.screenshot_as_png)) as picture:
            # The pages round the corners.
            colour = picture.convert("RGB").getpixel((picture.width - 20, picture.height - 20))
        assert isinstance(colour, tuple)
        return tuple(map(int, colour))

    def artifacts(self) -> list[dict[str, Any]]:
        """Return the run's artifacts."""
        of_run = {"artifacts": {"flow_run_id": {"any_": [self.run]}}}
        return list(answer_of(self.api, "POST", "artifacts/filter", of_run))

    def wait_for_text(self, *texts: str) -> None:
        """Wait until the page shows all of these texts."""
        self._wait.until(lambda _: all(text in self.browser.text() for text in texts))

    def picture(self, height: int) -> bytes:
        """Return a PNG of the page once nothing moves any longer."""
        last = b""
        while (now := self.browser.picture(height)) != last:
            last = now
            self.browser.driver.execute_async_script("setTimeout(arguments[0], 1000)")
        return now

    @property
    def _address(self) -> str:
        return self.api.removesuffix("/api")

    def _tab(self, name: str) -> WebElement | None:
        found = self.browser.driver.find_elements(By.XPATH, f"//li[normalize-space(.)='{name}']")
        return found[0] if found else None
