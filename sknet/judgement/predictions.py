"""What a checkpoint took each sample for, as an evaluation keeps it, by the samples' keys."""

from pathlib import Path
from typing import TYPE_CHECKING

from sknet.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def read_predictions(path: Path) -> "pd.DataFrame":
    """Return label and predicted class of each sample, by its key, in the file's order.

    Raises:
        UserError: the file can't be read, is no such table, or has a key twice; in one line.
    """
    import pandas as pd  # here: see sknet.data.staging

    from sknet.evaluation.predictions import read_predictions as read_kept

    kept = read_kept(path)
    frame = pd.DataFrame(
        {"label": kept.labels, "predicted": kept.top[:, 0]},
        index=pd.Index(kept.keys, dtype=object, name="key"),
    )
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise UserError(f"{path} has sample {twice!a} more than once")
    return frame
