"""Examples: thumbnails of the most confident wrong predictions of the most confused pairs."""

import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sknet.evaluation.examples import choose_examples, thumbnail, write_examples
from sknet.evaluation.predictions import Predictions, confused_pairs
from sknet.records import Examples
from tests.sknet.conversions import contents

CLASSES = 3


def predictions(samples: list[tuple[int, int, float]]) -> Predictions:
    """Return predictions from (label, prediction, probability)."""
    labels, first, probability = (np.array(column) for column in zip(*samples, strict=True))
    return Predictions(
        labels=labels.astype(np.int32),
        top=first.astype(np.int32)[:, None],
        probability=probability.astype(np.float32),
        loss=np.zeros(len(samples), np.float32),
    )


# Few different probabilities, so that most samples have ties.
samples = st.lists(
    st.tuples(
        st.integers(0, CLASSES - 1),
        st.integers(0, CLASSES - 1),
        st.sampled_from([0.25, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=40,
)


@given(samples)
def test_pairs_take_turns_with_their_most_confident_sample_left(
    drawn: list[tuple[int, int, float]],
) -> None:
    made = predictions(drawn)
    pairs = [(pair.label, pair.predicted) for pair in confused_pairs(made)]
    numbers = choose_examples(made, count=1000)
    assert sorted(numbers) == [n for n, (label, first, _) in enumerate(drawn) if label != first]
    turns: list[int] = []
    by_pair = {
        pair: sorted(
            (n for n, sample in enumerate(drawn) if sample[:2] == pair),
            key=lambda n: (-drawn[n][2], n),
        )
        for pair in pairs
    }
    while any(by_pair.values()):
        turns += [by_pair[pair].pop(0) for pair in pairs if by_pair[pair]]
    assert numbers == turns
    assert choose_examples(made) == turns[:12]


def encoded(size: tuple[int, int], form: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form)
    return buffer.getvalue()


def test_large_images_are_shrunk_and_small_ones_are_not_enlarged() -> None:
    assert thumbnail(encoded((500, 375))).size == (96, 72)
    assert thumbnail(encoded((20, 400), "PNG", "P")).size == (5, 96)
    assert thumbnail(encoded((32, 20), mode="CMYK")).size == (32, 20)


def test_the_record_names_the_files_and_writing_is_reproducible(tmp_path: Path) -> None:
    made = predictions([(0, 1, 0.5), (1, 1, 0.9), (0, 1, 0.75), (2, 0, 1.0)])
    images = [encoded((40, 40)), encoded((50, 40)), encoded((60, 40))]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_examples(tmp_path / name, made, ["a", "b", "c", "d"], images)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    record = Examples.read(tmp_path / "one/examples.json").examples
    assert [(e.key, e.label, e.predicted, e.probability) for e in record] == [
        ("c", 0, 1, 0.75),
        ("d", 2, 0, 1.0),
        ("a", 0, 1, 0.5),
    ]
    files = [(tmp_path / "one" / example.file).read_bytes() for example in record]
    assert [Image.open(io.BytesIO(file)).width for file in files] == [40, 50, 60]


def test_without_wrong_predictions_there_are_no_examples(tmp_path: Path) -> None:
    write_examples(tmp_path, predictions([(1, 1, 0.5)]), ["a"], [])
    assert contents(tmp_path).keys() == {"examples.json"}
