"""`predictions.parquet`: what a checkpoint took each sample for, as an evaluation keeps it."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sknet.errors import UserError

SCHEMA = {
    "key": pa.string(),
    "label": pa.int32(),
    "top5": pa.list_(pa.int32()),
    "probability": pa.float32(),
}


def read_predictions(path: Path) -> pd.DataFrame:
    """Return label and predicted class of each sample, by its key, in the file's order.

    Raises:
        UserError: the file can't be read or is no such table, in one line.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} can't be read as Parquet: {' '.join(str(error).split())}"
        ) from None
    return predictions_of(table, str(path))


def predictions_of(table: pa.Table, name: str) -> pd.DataFrame:
    """Return label and predicted class by key; `name` is said in errors."""
    for column, wanted in SCHEMA.items():
        if column not in table.column_names:
            raise UserError(f"{name} has no column {column!r}, expected {', '.join(SCHEMA)}")
        found = table.schema.field(column).type
        # The name of a list's items is no part of what it holds.
        same = pa.types.is_list(found) and found.value_type == pa.int32()
        if found != wanted and not (column == "top5" and same):
            raise UserError(f"{name}: column {column!r} holds {found}, expected {wanted}")
        if table[column].null_count:
            raise UserError(f"{name}: column {column!r} lacks {table[column].null_count} values")
    top5 = table["top5"].combine_chunks()
    if isinstance(top5, pa.ChunkedArray):  # of no chunk
        top5 = pa.array([], SCHEMA["top5"])
    if any(length == 0 for length in top5.value_lengths().to_pylist()):
        raise UserError(f"{name}: column 'top5' has samples without a prediction")
    frame = pd.DataFrame(
        {
            "label": table["label"].to_numpy(),
            "predicted": pc.list_element(top5, 0).to_numpy(zero_copy_only=False),
        },
        index=pd.Index(table["key"].to_pylist(), dtype=object, name="key"),
    )
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise UserError(f"{name} has sample {twice!r} more than once")
    return frame
