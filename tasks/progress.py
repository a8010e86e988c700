"""A bar in Prefect's UI for work that takes long."""

import time
from typing import cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

# Prefect's client tries for minutes to reach a server that is gone, and the work waits meanwhile.
SECONDS_WITHOUT = 600.0
SECONDS_BETWEEN = 5.0
"""Prefect's pages look less often; a step costs 8 ms of the flow's process."""


class ProgressArtifact:
    """Of the task that runs; made with its first update. Needs no server to go on working."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._artifact: UUID | None = None
        self._percent = -1.0
        self._not_before = 0.0
        self._without = False

    def update(self, share: float) -> None:
        """0 … 1."""
        percent = round(100 * share, 1)
        now = time.monotonic()
        if percent == self._percent or (now < self._not_before and not self._is_last(percent)):
            return
        try:
            if self._artifact is None:
                self._artifact = cast(
                    "UUID",  # and no coroutine, in a task that is none
                    create_progress_artifact(percent, key=self._key, description=self._description),
                )
            else:
                update_progress_artifact(self._artifact, percent)
        except httpx.HTTPError as error:
            get_run_logger().warning("progress is not shown for a while: %s", error)
            self._without, self._not_before = True, now + SECONDS_WITHOUT
            return
        self._percent, self._without = percent, False
        self._not_before = now + SECONDS_BETWEEN

    def _is_last(self, percent: float) -> bool:
        """Whether it says that all is done, which is shown at once unless the server is gone."""
        return percent == 100 and not self._without
