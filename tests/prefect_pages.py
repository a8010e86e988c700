"""Prefect's pages about one run, in a browser."""

from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import SECONDS, Browser
from tests.prefect_services import answer_of

TALL = 1300
"""Height in pixels that shows all tasks below the graph; the page omits what is out of sight."""


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
