"""Shards that come on demand, from a directory."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.base.on_demand import Supplier
from infra.base.progress import Count
from sknet.data.shards import ShardSet


class Supplied:
    """Shards whose files are copied on demand."""

    def __init__(
        self, stored: ShardSet, directory: Path, num_train: int, *, val: bool = False
    ) -> None:
        """Allow so many training shards there, and those of the evaluations beside them."""
        self.copied: list[str] = []
        self.at_once: set[str] | None = None
        """The files that come at once; all others, if it isn't None, only when `release` is set."""
        self.release = threading.Event()
        self._stored, self.directory = stored, directory
        self._sizes = {
            path.name: path.stat().st_size
            for path in stored.directory.iterdir()
            if path.name != "shards.json"
        }
        train, evaluated = (
            [file.size + file.index_size for file in stored.record.files_of(split)]
            for split in ("train", "val")
        )
        self._limit = num_train * max(train) + val * sum(evaluated)

    def _fetch(self, name: str, path: Path, count: Count) -> None:
        self.copied.append(name)
        if self.at_once is not None and name not in self.at_once:
            self.release.wait(600)
        shutil.copyfile(self._stored.directory / name, path)
        count(self._sizes[name])

    @contextmanager
    def supplier(self) -> Iterator[None]:
        with Supplier(self.directory, self._sizes, self._fetch, self._limit):
            shutil.copy(self._stored.directory / "shards.json", self.directory)
            yield

    @property
    def num_train(self) -> int:
        """Number of training shards that were copied, each as often as it was."""
        return sum(name.startswith("train") and not name.endswith(".db") for name in self.copied)
