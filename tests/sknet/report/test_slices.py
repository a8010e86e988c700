"""Accuracy on parts of the images, and single predictions, right and wrong."""

from pathlib import Path

import pandas as pd

from sknet.report import ReportContents, write_report
from sknet.report.data_contents import MAX_SAMPLES, sample_keys
from sknet.report.slices import MAX_SHOWN, shown_predictions, slices_as_text, slices_of
from tests.sknet.report.trained_runs import make_run

NUM = 90


def samples(**columns: object) -> pd.DataFrame:
    """Return 90 images of 10 to 99 pixels, the smallest 30 of which are all predicted wrongly."""
    numbers = range(NUM)
    table = {
        "split": "val",
        "key": [f"val/{number}.png" for number in numbers],
        "label": [number % 3 for number in numbers],
        "width": [10 + number for number in numbers],
        "height": 500,
        "brightness": 100.0,
        "predicted": [(number % 3 + (number < 30)) % 3 for number in numbers],
        "probability": [0.5 + number / 200 for number in numbers],
        "correct": [number >= 30 for number in numbers],
    }
    return pd.DataFrame({**table, **columns})


def test_images_are_divided_by_size_and_by_brightness_where_they_differ() -> None:
    parts = slices_of(samples())
    assert [(each.by, each.low, each.high, each.correct, each.seen) for each in parts] == [
        ("shorter side, pixels", 10, 39, 0, 30),
        ("shorter side, pixels", 40, 69, 30, 30),
        ("shorter side, pixels", 70, 99, 30, 30),
    ]
    assert parts[0].rest == (60, 60)
    bright = slices_of(samples(brightness=[number % 7 * 30.0 for number in range(NUM)]))
    assert {each.by for each in bright} == {"shorter side, pixels", "brightness"}
    assert slices_of(samples()[:20]) == [], "too few to be divided"


def test_a_part_is_called_lower_only_where_the_interval_says_so() -> None:
    assert slices_as_text(samples())["beside the other parts"].tolist() == [
        *("lower, -100.00 points", "higher, +50.00 points", "higher, +50.00 points")
    ]
    alike = slices_as_text(samples(correct=[number % 3 > 0 for number in range(NUM)]))
    assert alike["beside the other parts"].str.startswith("no difference is shown").all()


def test_wrong_and_right_predictions_are_shown_half_and_half() -> None:
    table = samples()
    shown = shown_predictions(table, table["key"].tolist())
    assert shown["correct"].tolist() == [False] * (MAX_SHOWN // 2) + [True] * (MAX_SHOWN // 2)
    assert shown["key"].iloc[0] == "val/29.png", "the most confident of the wrong ones"
    assert len(shown_predictions(table[30:], table["key"].tolist())) == MAX_SHOWN
    assert len(shown_predictions(table, ["val/3.png"])) == 1


def test_parts_are_in_the_files_and_on_the_page(tmp_path: Path) -> None:
    run = make_run()
    write_report(ReportContents(runs=(run,)), tmp_path, samples={run.key: samples()})
    table = pd.read_parquet(tmp_path / "slices.parquet")
    assert table["accuracy@1"].tolist() == [0, 100, 100]
    assert "on parts of 90 measured images of test" in (tmp_path / "report.html").read_text("utf-8")


def test_samples_of_the_data_come_from_each_class_in_turn_and_not_from_the_sealed_test() -> None:
    table = samples(split=["test"] * 45 + ["val"] * 45)
    keys = sample_keys(table)
    assert len(keys) == MAX_SAMPLES
    labels = table.set_index("key")["label"][keys].tolist()
    assert labels == [0, 1, 2] * (MAX_SAMPLES // 3)
    assert set(table.set_index("key")["split"][keys]) == {"val"}
