"""Predictions: stored and read without loss, refused if damaged, and paired by key."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.errors import UserError
from sknet.evaluation.predictions import (
    Predictions,
    pair,
    read_predictions,
    schema,
    write_predictions,
)
from sknet.significance import PairedCounts
from tests.sknet.predictions import stored_predictions

LOGITS = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
PREDICTIONS = Predictions.of_logits(LOGITS, (np.arange(40) % 7).astype(np.int32))
KEYS = [f"class-{number % 7}/ü {number}.jpg" for number in range(40)]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stored") / "predictions.parquet"
    write_predictions(path, KEYS, PREDICTIONS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign") / "predictions.parquet"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_predictions(path)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value).removeprefix(f"{path} ")


@pytest.mark.parametrize("num_classes", [1, 3, 5, 7])
def test_predictions_are_read_as_they_were_written(file: Path, num_classes: int) -> None:
    labels = np.arange(40, dtype=np.int32) % num_classes
    predictions = Predictions.of_logits(LOGITS[:, :num_classes], labels)
    write_predictions(file, KEYS, predictions)
    stored = read_predictions(file)
    assert stored.keys == tuple(KEYS)
    assert stored.labels.tolist() == predictions.labels.tolist()
    assert stored.top.tolist() == predictions.top.tolist()
    assert stored.top.shape == (40, min(5, num_classes))
    assert stored.probability.tobytes() == predictions.probability.tobytes()
    assert stored.correct.tolist() == predictions.correct.tolist()


def test_equal_predictions_give_equal_bytes(content: bytes, file: Path) -> None:
    write_predictions(file, list(KEYS), Predictions.of_rows(PREDICTIONS.rows))
    assert file.read_bytes() == content


def test_pandas_reads_the_documented_columns(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    frame = pd.read_parquet(file)
    assert frame.dtypes.astype(str).to_dict() == {
        "key": "str" if pd.__version__ >= "3" else "object",
        "label": "int32",
        "top5": "object",
        "probability": "float32",
    }
    assert (frame.top5.str[0] == frame.label).sum() == PREDICTIONS.correct.sum()


@given(st.data())
def test_a_flipped_bit_or_a_cut_is_refused_or_changes_nothing(
    content: bytes, file: Path, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        file.write_bytes(content[:position])
        assert refusal(file)
        return
    changed = bytearray(content)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(changed)
    try:
        stored = read_predictions(file)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        # No checksum covers the statistics and the writer's name, and nothing reads them.
        assert (stored.keys, stored.top.tolist()) == (tuple(KEYS), PREDICTIONS.top.tolist())


def table(**columns: list[object]) -> pa.Table:
    whole = {
        "key": ["a", "b"],
        "label": [0, 1],
        "top5": [[0, 1], [1, 0]],
        "probability": [0.5, 1.0],
        **columns,
    }
    return pa.Table.from_pydict(whole, schema=schema())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": [], "label": [], "top5": [], "probability": []}, "holds no predictions: 0 rows"),
        ({"top5": [[0, 1], [1]]}, "holds no predictions: 2 rows of [1, 2] classes each"),
        ({"top5": [[], []]}, "holds no predictions: 2 rows of [0] classes each"),
        ({"top5": [[0] * 6, [0] * 6]}, "holds no predictions: 2 rows of [6] classes each"),
        ({"label": [0, -1]}, "holds no predictions: a class is below 0"),
        ({"top5": [[0, 1], [-1, 0]]}, "holds no predictions: a class is below 0"),
        ({"probability": [0.5, 1.5]}, "holds no predictions: a probability is not within"),
        ({"probability": [0.5, float("nan")]}, "holds no predictions: a probability is not within"),
        ({"key": ["a", "a"]}, "has sample 'a' more than once"),
    ],
)
def test_impossible_values_are_refused(
    file: Path, columns: dict[str, list[object]], message: str
) -> None:
    pq.write_table(table(**columns), file)
    assert refusal(file).startswith(message)


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("can't be read: No such file or directory")
    assert refusal(tmp_path).endswith("can't be read: Is a directory")
    for foreign in (b"", b"PAR1", b"key,label\n", b"PAR1" + bytes(100) + b"PAR1"):
        file.write_bytes(foreign)
        assert refusal(file)
    pq.write_table(table().drop_columns(["top5"]), file)
    assert "its columns are 'key string, label int32, probability float'" in refusal(file)
    pq.write_table(pa.table({f"column\n{number}": [1] for number in range(99)}), file)
    assert refusal(file).startswith("holds no predictions: its columns are ")


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30), st.randoms())
def test_samples_are_paired_by_key_whatever_their_order(samples, random) -> None:
    labels, own, other = zip(*samples, strict=True)
    keys = [f"sample-{index}" for index in range(len(samples))]
    order = random.sample(range(len(samples)), len(samples))
    first = stored_predictions(own, labels, keys)
    shuffled = stored_predictions(
        [other[index] for index in order],
        [labels[index] for index in order],
        [keys[index] for index in order],
    )

    paired = pair(first, shuffled)

    assert paired.keys == tuple(keys)
    assert paired.labels.tolist() == list(labels)
    assert paired.first.tolist() == list(own)
    assert paired.second.tolist() == list(other)


def test_paired_counts_say_which_evaluation_is_correct() -> None:
    labels = [0, 1, 2, 3, 4, 5]
    first = stored_predictions([0, 1, 2, 0, 0, 0], labels)
    second = stored_predictions([0, 1, 0, 3, 4, 0], labels)
    assert pair(first, second).counts == PairedCounts(
        both=2, only_first=1, only_second=2, neither=1
    )


def test_other_samples_or_labels_cannot_be_paired() -> None:
    with pytest.raises(UserError, match=r"1 are in one of them only, as 'c'"):
        pair(stored_predictions([0, 0], [0, 0]), stored_predictions([0, 0, 0], [0, 0, 0]))
    with pytest.raises(UserError, match=r"give sample 'a' different labels"):
        pair(stored_predictions([0, 0], [0, 0]), stored_predictions([0, 0], [1, 1]))
