"""Checkpoints and reports in a store, which this library knows by name only.

A package that has stores registers two functions under the entry points `sknet.stores`:
`checkpoint`, from a store's URI (or None for the default store) and a ref to a `StoredCheckpoint`,
and `report`, from a URI to `sknet.report.ReportContents`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sknet.errors import UserError
from sknet.records.calibration import CALIBRATION_FILE, Calibration

if TYPE_CHECKING:
    import pandas as pd

    from sknet.report import ReportContents

REF = "production"
"""The ref of a store that is used unless another one is given."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in a store, with its files on this machine."""

    name: str
    """Names it in messages, such as `checkpoint/3f2a91…`."""
    directory: Path
    """The checkpoint's directory."""
    evaluation: Path | None
    """Directory of its newest evaluation on the data that it was trained on, if there is one; one
    with a calibration is preferred."""
    suspect: str | None = None
    """Why the checkpoint is in doubt; None if it isn't."""
    shards: Callable[[], Path] | None = None
    """Returns the directory of the shards that it was trained on, which may have to be fetched."""

    @property
    def calibration(self) -> Calibration | None:
        """That of the evaluation, if it has one."""
        file = self.evaluation / CALIBRATION_FILE if self.evaluation else None
        return Calibration.read(file) if file and file.is_file() else None


def stored_checkpoint(store: str | Path | None, ref: str) -> StoredCheckpoint:
    """Return the checkpoint to which a ref of a store points.

    Args:
        store: A path, file:///… or s3://…; None: what SKNET_STORE says, or `artifacts`.
        ref: Name of the ref, such as `production`.

    Raises:
        UserError: There is no such store, ref or checkpoint, or it is damaged.
    """
    found: StoredCheckpoint = _registered("checkpoint")(_uri(store), ref)
    return found


class StoreReport:
    """All tables of a report on a store's runs, as frames; `report.runs` is that of the runs."""

    def __init__(self, contents: "ReportContents") -> None:
        from sknet.report import all_tables

        self.contents = contents
        """What the tables are made from: records of runs, data sets and revalidations."""
        self.tables: dict[str, pd.DataFrame] = all_tables(contents)

    def __getattr__(self, name: str) -> "pd.DataFrame":
        """Return the table of this name; `_` stands for `-`."""
        tables = self.__dict__.get("tables", {})
        for table in (name, name.replace("_", "-")):
            if table in tables:
                frame: pd.DataFrame = tables[table]
                return frame
        raise AttributeError(f"a report has no table {name!r}, but {', '.join(tables)}")

    def __dir__(self) -> list[str]:
        return ["contents", "tables", *(name.replace("-", "_") for name in self.tables)]

    def __repr__(self) -> str:
        return f"StoreReport({', '.join(self.tables)})"


def open_report(store: str | Path | None = None) -> StoreReport:
    """Return the tables of a report on all runs of a store, as pandas frames.

    Args:
        store: A path, file:///… or s3://…; None: what SKNET_STORE says, or `artifacts`.

    Raises:
        UserError: There is no such store.
    """
    return StoreReport(_registered("report")(_uri(store)))


def _uri(store: str | Path | None) -> str | None:
    return None if store is None else str(store)


def _registered(name: str) -> Any:
    for point in entry_points(group="sknet.stores", name=name):
        return point.load()
    raise UserError("no package that has stores is installed: expected one of the whole project")
