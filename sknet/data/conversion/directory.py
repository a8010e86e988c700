"""The directory of a conversion: which shards in it are finished, and who may write.

    out/.conversion.lock                 exists while a conversion is running
    out/.conversion/<shard>.<attempt>/   where one attempt at a shard writes, and nobody else
    out/<shard>.mindrecord[.db]          moved there when the shard is whole and on disk
    out/.conversion/<shard>.json         written last: the shard is finished
    out/shards.json                      written when all are; then out/.conversion is removed

After a kill, the next conversion reuses each shard whose record belongs to the same plan and whose
files have the recorded sizes and SHA-256. It removes everything else that is left.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.base.files import replace_file
from infra.base.locks import exclusive
from infra.base.records import Record, Sha256
from sknet.data.conversion.plan import shard_names, shards_of
from sknet.data.index import SampleIndex
from sknet.errors import UserError
from sknet.records import QuarantinedSample, ShardFile, Shards
from sknet.records.data import SHARDS_FILE

WORK = ".conversion"
LOCK = ".conversion.lock"
ATTEMPT_FILE = "plan"
"""File in WORK that names the running conversion, so that other hosts can tell whether they see
the same directory."""

_OURS = re.compile(
    r"[a-z]+-\d{5}-of-\d{5}\.mindrecord(\.db)?|shards\.json(\.part)?|\.conversion(\.lock)?"
)


class ShardRecord(Record):
    """A finished shard, for the next conversion into the same directory."""

    plan: Sha256
    file: ShardFile
    quarantined: tuple[QuarantinedSample, ...]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory. The kernel frees it when this process ends, however it ends.

    Raises:
        UserError: Another conversion holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(directory / LOCK, wait=False))
        except BlockingIOError:
            raise UserError(f"another conversion is at work in {directory}") from None
        yield


def prepare(
    directory: Path, index: SampleIndex, counts: dict[str, int], plan: str, attempt: str
) -> None:
    """Remove everything but the finished shards of this plan and their records.

    Args:
        directory: The directory of the conversion.
        index: The samples.
        counts: Number of shards of each split.
        plan: Digest of the plan.
        attempt: Name of this conversion, for hosts that help with it.

    Raises:
        UserError: The directory holds a file that no conversion wrote.
    """
    for path in directory.iterdir():
        if not _OURS.fullmatch(path.name):
            raise UserError(
                f"{directory} holds {path.name!r}, which no conversion wrote: "
                "expected a new or empty directory, or that of an earlier conversion"
            )
    work = directory / WORK
    work.mkdir(exist_ok=True)
    _reopen(directory, plan, index, counts)
    finished = {name for name in shard_names(counts) if _belongs_to(plan, work / f"{name}.json")}
    records = {f"{name}.json" for name in finished}
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in records:
            path.unlink()
    for path in directory.iterdir():
        if path.name not in (WORK, LOCK) and path.name.removesuffix(".db") not in finished:
            path.unlink()
    (work / ATTEMPT_FILE).write_text(attempt, "ascii")


def _belongs_to(plan: str, path: Path) -> bool:
    try:
        return ShardRecord.read(path).plan == plan
    except UserError:
        return False


def _reopen(directory: Path, plan: str, index: SampleIndex, counts: dict[str, int]) -> None:
    """Turn a finished conversion of this plan back into the records of its shards."""
    try:
        shards = Shards.read(directory / SHARDS_FILE)
    except UserError:
        return
    if shards.plan != plan:
        return
    quarantined: dict[str, list[QuarantinedSample]] = {file.name: [] for file in shards.files}
    by_key = {sample.key: sample for sample in shards.quarantined}
    for name, key in shards_of(index, counts, by_key) if by_key else ():
        quarantined[name].append(by_key[key])
    for file in shards.files:
        record = ShardRecord(plan=plan, file=file, quarantined=tuple(quarantined[file.name]))
        replace_file(directory / WORK / f"{file.name}.json", record.encode(), durable=True)
