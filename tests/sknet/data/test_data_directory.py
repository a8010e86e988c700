"""The shards that programs make of the images they are given."""

import shutil
import threading
from pathlib import Path

from infra.base.locks import exclusive
from sknet.data.data_directory import shards_at
from sknet.data.shards import ShardSet
from sknet.data.sources import open_source
from sknet.data.staging import stage_source


def test_a_program_waits_for_another_that_converts_the_same_images(
    folders: Path, converted: ShardSet, tmp_path: Path
) -> None:
    """The other one publishes shards of its own, by which one sees that nothing was converted."""
    name = stage_source(open_source(str(folders))).dataset.content_digest[:16]
    waiting = f"waiting for another program that converts {folders}"
    lines: list[str] = []
    told = threading.Event()

    def report(line: str) -> None:
        lines.append(line)
        if line == waiting:
            told.set()

    read: list[ShardSet] = []

    def wait() -> None:
        read.append(shards_at(str(folders), tmp_path, rank=0, num_workers=1, report=report))

    with exclusive(tmp_path / f".{name}.lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert told.wait(60)
        shutil.copytree(converted.directory, tmp_path / name)
    thread.join(60)
    assert lines[-1] == waiting
    assert [each.record for each in read] == [converted.record]
    assert [path.name for path in tmp_path.iterdir()] == [name]
