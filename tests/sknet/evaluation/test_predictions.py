"""Kept predictions: every sample in its order, equal bytes for equal predictions, nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.errors import UserError
from sknet.evaluation.predictions import SCHEMA, Predictions, read_predictions, write_predictions

LOGITS = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
PREDICTIONS = Predictions.of_logits(LOGITS, (np.arange(40) % 7).astype(np.int32))
KEYS = [f"class-{number % 7}/ü {number}.jpg" for number in range(40)]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("kept") / "predictions.parquet"
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
def test_what_is_read_back_is_what_was_predicted(file: Path, num_classes: int) -> None:
    labels = np.arange(40, dtype=np.int32) % num_classes
    predictions = Predictions.of_logits(LOGITS[:, :num_classes], labels)
    write_predictions(file, KEYS, predictions)
    kept = read_predictions(file)
    assert kept.keys == tuple(KEYS)
    assert kept.labels.tolist() == predictions.labels.tolist()
    assert kept.top.tolist() == predictions.top.tolist()
    assert kept.top.shape == (40, min(5, num_classes))
    assert kept.probability.tobytes() == predictions.probability.tobytes()
    assert kept.correct.tolist() == predictions.correct.tolist()


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
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        file.write_bytes(content[:place])
        assert refusal(file)
        return
    changed = bytearray(content)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(changed)
    try:
        kept = read_predictions(file)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        # Of what isn't covered by a checksum (statistics, the writer's name) nothing is used.
        assert (kept.keys, kept.top.tolist()) == (tuple(KEYS), PREDICTIONS.top.tolist())


def table(**columns: list[object]) -> pa.Table:
    whole = {
        "key": ["a", "b"],
        "label": [0, 1],
        "top5": [[0, 1], [1, 0]],
        "probability": [0.5, 1.0],
        **columns,
    }
    return pa.Table.from_pydict(whole, schema=SCHEMA)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": [], "label": [], "top5": [], "probability": []}, "holds no predictions: 0 rows"),
        ({"top5": [[0, 1], [1]]}, "holds no predictions: 2 rows of [1, 2] classes each"),
        ({"top5": [[], []]}, "holds no predictions: 2 rows of [0] classes each"),
        ({"top5": [[0] * 6, [0] * 6]}, "holds no predictions: 2 rows of [6] classes each"),
        ({"label": [0, -1]}, "holds no predictions: a class is below 0"),
        ({"top5": [[0, 1], [-1, 0]]}, "holds no predictions: a class is below 0"),
        ({"probability": [0.5, 1.5]}, "holds no predictions: a probability is not within"),
        ({"probability": [0.5, float("nan")]}, "holds no predictions: a probability is not within"),
    ],
)
def test_values_that_no_network_predicts_are_refused(
    file: Path, columns: dict[str, list[object]], said: str
) -> None:
    pq.write_table(table(**columns), file)
    assert refusal(file).startswith(said)


def test_what_is_no_such_file_is_refused(file: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("can't be read: No such file or directory")
    assert refusal(tmp_path).endswith("can't be read: Is a directory")
    for foreign in (b"", b"PAR1", b"key,label\n", b"PAR1" + bytes(100) + b"PAR1"):
        file.write_bytes(foreign)
        assert refusal(file)
    pq.write_table(table().drop_columns(["top5"]), file)
    assert "its columns are 'key string, label int32, probability float'" in refusal(file)
    pq.write_table(pa.table({f"column\n{number}": [1] for number in range(99)}), file)
    assert refusal(file).startswith("holds no predictions: its columns are ")
