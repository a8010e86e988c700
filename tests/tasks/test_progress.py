"""The bar of a long task: seldom enough to cost nothing, and at its end when the work is."""

from uuid import UUID

import pytest
from prefect import flow, runtime

from tasks import programs as progress
from tasks.programs import ProgressArtifact
from tests.tiny_pipeline import shown_by

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flow_harness")]


def test_a_bar_waits_between_its_steps_but_not_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 600)
    seen: list[object] = []

    @flow
    def work() -> None:
        bar = ProgressArtifact("work", "Share of the work")
        for share in (0.1, 0.2, 1.0):
            bar.update(share)
            seen.append(shown_by(UUID(str(runtime.flow_run.id)))["work"].data)

    work()
    assert seen == [10.0, 10.0, 100.0]
