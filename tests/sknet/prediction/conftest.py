"""What tests of predictions share."""

import pytest

from sknet import predict


@pytest.fixture
def without_mindspore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose program goes on to load MindSpore."""
    monkeypatch.setattr(predict, "_predictor_class", lambda: pytest.fail("loaded MindSpore"))
