"""The directory of a conversion: what is finished in it, and who may write.

    out/.conversion/<shard>.<attempt>/   where one attempt writes; no two writers ever meet
    out/<shard>.mindrecord[.db]          moved there, synced, once whole
    out/.conversion/<shard>.json         written last: the shard is finished
    out/shards.json                      written once all are; then out/.conversion goes

A start after a kill trusts a shard whose record is of the same plan and whose files have the
recorded sizes and SHA-256; it removes whatever else an earlier conversion left.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sknet.data.conversion.plan import ShardPlan, plan_shards, shard_names
from sknet.data.staging import Staged
from sknet.errors import UserError
from sknet.records import QuarantinedSample, Record, Sha256, ShardFile, Shards

WORK = ".conversion"
PLAN_FILE = "plan"
_OURS = re.compile(r"[a-z]+-\d{5}-of-\d{5}\.mindrecord(\.db)?|shards\.json(\.part)?|\.conversion")


class ShardRecord(Record):
    """A finished shard, as the next start finds it."""

    plan: Sha256
    file: ShardFile
    quarantined: tuple[QuarantinedSample, ...]


@contextmanager
def only_conversion_in(directory: Path) -> Iterator[None]:
    """Hold the directory; the kernel lets go when this process ends, however it ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another conversion is at work in {directory}") from None
        yield
    finally:
        os.close(descriptor)


def begin(directory: Path, staged: Staged, counts: dict[str, int], plan: str, attempt: str) -> None:
    """Leave finished shards of this plan, with their records, and nothing else."""
    for path in directory.iterdir():
        if not _OURS.fullmatch(path.name):
            raise UserError(
                f"{directory} holds {path.name!r}, which no conversion wrote: "
                "expected a new or empty directory, or that of an earlier conversion"
            )
    work = directory / WORK
    work.mkdir(exist_ok=True)
    _reopen(directory, plan, plan_shards(staged, counts))
    names = shard_names(counts)
    trusted = {f"{name}.json" for name in names if _is_of(plan, work / f"{name}.json")}
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in trusted:
            path.unlink()
    kept = {name.removesuffix(".json") for name in trusted}
    for path in directory.iterdir():
        if path != work and path.name.removesuffix(".db") not in kept:
            path.unlink()
    (work / PLAN_FILE).write_text(attempt, "ascii")


def write_durably(record: Record, path: Path) -> None:
    """Write so that after any crash the file is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    record.write(part)
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's or directory's content reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_of(plan: str, path: Path) -> bool:
    try:
        return ShardRecord.read(path).plan == plan
    except UserError:
        return False


def _reopen(directory: Path, plan: str, planned: Iterable[ShardPlan]) -> None:
    """Turn a finished conversion of this plan back into records of its shards."""
    try:
        shards = Shards.read(directory / "shards.json")
    except UserError:
        return
    if shards.plan != plan:
        return
    left_out: dict[str, list[QuarantinedSample]] = {file.name: [] for file in shards.files}
    keys = {sample.key: sample for sample in shards.quarantined}
    for shard in planned if keys else ():
        held = shard.rows["key"][shard.rows["key"].isin(list(keys))]
        left_out[shard.name] = [keys[key] for key in held]
    for file in shards.files:
        record = ShardRecord(plan=plan, file=file, quarantined=tuple(left_out[file.name]))
        write_durably(record, directory / WORK / f"{file.name}.json")
