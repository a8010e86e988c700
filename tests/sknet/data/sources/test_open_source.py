"""Sources by what users write: the digits, unknown schemes, and paths from another directory."""

from pathlib import Path

import pytest

from sknet.data.sources import absolute, open_source
from tests.refusals import refusal
from tests.sknet.conversions import stage


def test_digits_are_1437_training_and_360_validation_images_of_10_classes() -> None:
    staged = stage("digits")
    assert staged.dataset.splits == {"train": 1437, "val": 360}
    assert staged.dataset.classes == tuple("0123456789")
    assert staged.index["key"].is_unique
    assert set(staged.index["label"]) == set(range(10))
    assert staged.index["split"].tolist() == ["train"] * 1437 + ["val"] * 360
    # In scikit-learn's order.
    assert staged.index["offset"].tolist() == list(range(1797))


@pytest.mark.parametrize("source", ["gs://bucket/x", "http://host/x"])
def test_unknown_scheme_is_refused(source: str) -> None:
    assert "expected a directory, or a URI that begins with s3://" in refusal(
        lambda: open_source(source)
    )


def test_absolute_source_means_the_same_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ("digits?test=0.1", "s3://b/p", "x?val=0.1", "fashion-mnist:y")
    expected = (
        "digits?test=0.1",
        "s3://b/p",
        f"{tmp_path}/x?val=0.1",
        f"fashion-mnist:{tmp_path}/y",
    )
    assert tuple(map(absolute, sources)) == expected
