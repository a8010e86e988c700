"""Images that can't be used: named where they are left out, and refused if there are too many."""

import logging
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sknet.data.data_directory import shards_at
from sknet.data.quarantine import MAX_LINES, refuse_too_many, report_quarantined
from sknet.errors import UserError
from sknet.records import QuarantinedSample
from tests.refusals import refusal
from tests.sknet.conversions import convert, stage

CAT = "train/cat"


def samples(count: int) -> list[QuarantinedSample]:
    return [QuarantinedSample(split="", key=f"{each:05}", reason="bad") for each in range(count)]


@pytest.mark.parametrize(
    ("bad", "of", "fraction"),
    [
        (0, 10, 0),
        (5, 10, None),
        (5, 4999, None),
        (6, 6000, None),
        (1, 20, 0.05),
        (20, 20, 1),
    ],
)
def test_few_are_left_out(bad: int, of: int, fraction: float | None) -> None:
    refuse_too_many(samples(bad), of, fraction)


@pytest.mark.parametrize(
    ("bad", "of", "fraction", "limit", "enough"),
    [
        (6, 241, None, "5 of them", "0.025"),
        (7, 6000, None, "0.10%", "0.002"),
        (1, 241, 0, "0.00%", "0.005"),
        (3, 100, 0.02, "2.00%", "0.03"),
    ],
)
def test_more_are_refused_with_the_option_that_leaves_them_out(
    bad: int, of: int, fraction: float | None, limit: str, enough: str
) -> None:
    assert refusal(lambda: refuse_too_many(samples(bad)[::-1], of, fraction)) == (
        f"{bad} of {of} samples ({bad / of:.2%}) can't be used, more than {limit}; the first is "
        f"00000: bad; to leave them out, give --max-quarantine {enough}"
    )
    refuse_too_many(samples(bad), of, float(enough))


@given(st.integers(1, 3000).flatmap(lambda of: st.tuples(st.integers(1, of), st.just(of))))
@example((29, 50))
@example((1702, 2960))
@settings(deadline=None, max_examples=50)
def test_option_that_a_refusal_suggests_is_enough(counts: tuple[int, int]) -> None:
    """Also where the product of the fraction and the number of samples is rounded, as in these."""
    bad, of = samples(counts[0]), counts[1]
    message = refusal(lambda: refuse_too_many(bad, of, 0))
    refuse_too_many(bad, of, float(message.rpartition(" ")[2]))


def test_each_is_named_where_it_is_left_out(images_copy: Path, tmp_path: Path) -> None:
    (images_copy / CAT / "empty.png").write_bytes(b"")
    (images_copy / CAT / "text.jpg").write_bytes(b"text")
    for number in range(7):
        (images_copy / CAT / f"{number}.txt").write_text("1")
    lines: list[tuple[int, str]] = []
    staged = stage(images_copy, report=lambda *line: lines.append(line))
    assert [entry.key for entry in staged.dataset.quarantined] == [f"{CAT}/empty.png"]
    texts = ", ".join(f"{CAT}/{number}.txt" for number in range(5))
    assert lines == [
        (logging.INFO, "stage: split train: train/"),
        (logging.INFO, "stage: split val: val/"),
        (logging.INFO, "stage: 3 classes: cat, dog, emu"),
        (logging.INFO, f"stage: ignored 7 files (no image): {texts}, …"),
        (logging.WARNING, f"stage: left out {CAT}/empty.png: empty"),
    ]
    lines.clear()
    shards = convert(images_copy, tmp_path / "shards", report=lambda *line: lines.append(line))
    (left_out,) = shards.quarantined
    assert lines == [(logging.WARNING, f"convert: left out {CAT}/text.jpg: {left_out.reason}")]


def test_each_is_named_although_they_are_too_many(images_copy: Path) -> None:
    for number in range(6):
        (images_copy / CAT / f"empty{number}.png").write_bytes(b"")
    lines: list[str] = []
    with pytest.raises(UserError):
        stage(images_copy, report=lambda _, line: lines.append(line))
    assert sum(line.startswith("stage: left out ") for line in lines) == 6


def test_so_many_lines_are_enough() -> None:
    lines: list[str] = []
    report_quarantined(lambda _, line: lines.append(line), "stage", samples(MAX_LINES + 3))
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == "stage: left out 3 more"


def test_limit_also_holds_for_the_shards_of_an_earlier_run(
    images_copy: Path, tmp_path: Path
) -> None:
    for number in range(2):
        (images_copy / CAT / f"text{number}.jpg").write_bytes(b"text")
    name = stage(images_copy).dataset.content_digest[:16]
    convert(images_copy, tmp_path / name)
    shards_at(str(images_copy), tmp_path, rank=0, num_workers=1)
    message = refusal(
        lambda: shards_at(str(images_copy), tmp_path, rank=0, num_workers=1, max_quarantine=0.05)
    )
    assert message.startswith("2 of 23 samples (8.70%) can't be used, more than 5.00%")
